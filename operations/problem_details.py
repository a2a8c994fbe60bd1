"""Problem documents (RFC 9457): the one form in which the API says that something is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from django.http import HttpResponse

from operations.correlation import correlation_id
from operations.errors import FieldError, ProblemError

MEDIA_TYPE: Final = "application/problem+json"


def problem_document(
    *, status: int, code: str, title: str, detail: str, errors: Sequence[FieldError] = ()
) -> dict[str, Any]:
    """The body of a problem answer.

    ``type`` is a URN made of the code: as stable as the code, and it promises no page that might not be there.
    """
    return {
        "type": f"urn:zenskar:problem:{code.replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "errors": [_error_document(error) for error in errors],
        "correlation_id": correlation_id(),
    }


def document_of(error: ProblemError) -> dict[str, Any]:
    """The body that answers ``error``."""
    document = problem_document(
        status=error.status, code=error.code, title=error.title, detail=error.detail, errors=error.errors
    )
    if error.field:
        document["field"] = error.field
    return document | error.members


def problem_response(error: ProblemError) -> HttpResponse:
    """The answer to ``error``, for places that Django REST framework does not reach: middleware and plain views."""
    return document_response(document_of(error), error.headers)


def document_response(document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> HttpResponse:
    """A problem document as a plain Django answer."""
    content = orjson.dumps(document)
    return HttpResponse(content, status=document["status"], content_type=MEDIA_TYPE, headers=dict(headers or {}))


def _error_document(error: FieldError) -> dict[str, str]:
    document = {"pointer": error.pointer, "code": error.code, "detail": error.detail}
    if error.parameter:
        document["parameter"] = error.parameter
    return document
