"""What no request may be, whatever it is about: too large, incomplete, too slow, with an address that is no text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.http import HttpRequest, HttpResponse, UnreadablePostError

from operations.errors import (
    BodyCutOff,
    BodyTooLarge,
    BodyTooSlow,
    EncodingRefused,
    LengthRequired,
    MalformedRequest,
    ProblemError,
)
from operations.problem_details import problem_response

READ_AWAY_AT_MOST: Final = 32 * 1024 * 1024
_CHUNK: Final = 64 * 1024


class RequestLimitsMiddleware:
    """Refuses such requests before anything reads them: one place for the API, the webhooks and the console.

    PostgreSQL cannot store or compare NUL, so an address with one can name nothing; refusing it here spares every
    look-up its own check. The body is read here, whole: half of a request, from a client that died while it sent, may
    be a good one of another meaning, and is not carried out.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        error = self._error(request)
        return self.get_response(request) if error is None else problem_response(error)

    def _error(self, request: HttpRequest) -> ProblemError | None:
        if "\x00" in request.path_info or not _is_text(request.META.get("QUERY_STRING", "")):
            return MalformedRequest()
        if "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower() and not request.META.get(
            "CONTENT_LENGTH"
        ):
            # WSGI leaves such a body unread, so it would look empty.
            return LengthRequired()
        if request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower() not in ("", "identity"):
            # Unpacked it would be another body than the one that was measured and signed.
            return EncodingRefused(headers={"Accept-Encoding": "identity"})
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        if limit is not None and _length(request) > limit:
            _read_away(request, _length(request))
            return BodyTooLarge(f"The body is larger than {limit} bytes.")
        try:
            return BodyCutOff() if len(request.body) < _length(request) else None
        except UnreadablePostError as error:
            # The web worker says when a client had time enough; everything else is a connection that broke.
            return BodyTooSlow() if _timed_out(error) else BodyCutOff()


def _is_text(query: str) -> bool:
    """Whether the query string is UTF-8 without NUL; Django would put replacement characters in the place of others,
    and the caller would search for what it never asked for.
    """
    if query.isascii() and "%" not in query:
        return "\x00" not in query
    raw = unquote_to_bytes(query.encode("latin-1", "replace"))
    try:
        return "\x00" not in raw.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _timed_out(error: BaseException | None) -> bool:
    while isinstance(error, UnreadablePostError):
        # Django wraps it more than once.
        error = error.__cause__
    return isinstance(error, TimeoutError)


def _length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def _read_away(request: HttpRequest, length: int) -> None:
    """Read what the client is sending, up to a bound.

    Closing a connection with unread bytes resets it, and most clients then report the reset instead of the answer.
    """
    left = min(length, READ_AWAY_AT_MOST)
    while left > 0:
        try:
            chunk = request.read(min(_CHUNK, left))
        except UnreadablePostError:
            return
        if not chunk:
            return
        left -= len(chunk)
