"""Errors that an API client may see, as types; ``zenskar.problems`` turns them into problem+json (RFC 9457)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """What is wrong with one value of the request.

    Attributes:
        pointer: JSON pointer (RFC 6901) into the request body, as ``/address/city``; empty for the whole body.
        code: stable word for API clients.
        detail: one sentence for a person.
        parameter: name of the query parameter, when the value did not come in the body.
    """

    pointer: str = ""
    code: str
    detail: str
    parameter: str = ""


class ProblemError(Exception):
    """The request could not be carried out.

    Apps subclass it: ``status``, ``code`` and ``title`` as class attributes, the docstring is the default detail.

    Args:
        detail: one sentence for a person, without secrets and without other people's data.
        errors: what is wrong with which value.
        headers: headers of the answer.

    Attributes:
        members: more members of the problem document, as RFC 9457 allows.
    """

    status: int = 400
    code: str = "bad_request"
    title: str = "Bad request"
    field: str = ""
    """The field that a constraint refused, for clients that look for it by name."""

    def __init__(
        self, detail: str = "", *, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        self.detail = detail or inspect.cleandoc(type(self).__doc__ or self.title).partition("\n\n")[0]
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.members: dict[str, Any] = {}
        super().__init__(self.detail)


class MalformedBody(ProblemError):
    """The body is not JSON as RFC 8259 defines it."""

    code = "malformed_json"
    title = "Malformed body"


class MalformedRequest(ProblemError):
    """The address holds characters that no record can hold."""

    code = "malformed_request"
    title = "Malformed request"


class BodyCutOff(ProblemError):
    """The body ended before it was as long as Content-Length says."""

    code = "body_cut_off"
    title = "Body cut off"


class BodyTooSlow(ProblemError):
    """The body did not arrive in time."""

    status = 408
    code = "body_too_slow"
    title = "Body too slow"


class BodyTooLarge(ProblemError):
    """The body is larger than this service takes."""

    status = 413
    code = "body_too_large"
    title = "Body too large"


class EncodingRefused(ProblemError):
    """A body is sent as it is: no Content-Encoding but identity is taken."""

    status = 415
    code = "unsupported_encoding"
    title = "Encoding not taken"


class LengthRequired(ProblemError):
    """A body needs a Content-Length header."""

    status = 411
    code = "length_required"
    title = "Length required"


class CredentialsRefused(ProblemError):
    """The API key is unknown, expired or revoked."""

    status = 401
    code = "credentials_refused"
    title = "Not authenticated"


class ScopeMissing(ProblemError):
    """The caller may not do this."""

    status = 403
    code = "insufficient_scope"
    title = "Not allowed"


class CsrfFailed(ProblemError):
    """A request that writes with a session cookie needs the CSRF token of that session."""

    status = 403
    code = "csrf_failed"
    title = "CSRF check failed"
