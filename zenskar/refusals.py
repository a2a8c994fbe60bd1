"""Answers to what the web process refuses before there is a request that the application could see.

They look as all other refusals do: problem+json with a correlation id, and one line in the log. Nothing of what the
client sent is repeated.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import orjson
import structlog
from gunicorn.http import errors

from operations.correlation import HEADER, correlation_bound
from operations.problem_details import MEDIA_TYPE, problem_document

log = structlog.get_logger(__name__)

_FAULTS_OF_OURS: Final = (
    errors.InvalidResponseHeader,
    errors.InvalidResponseHeaderName,
    errors.ConfigurationProblem,
)
# The first class that fits decides.
_REFUSALS: Final[tuple[tuple[type[Exception], int, str, str], ...]] = (
    (errors.LimitRequestLine, 414, "address_too_long", "The address of the request is too long."),
    (errors.LimitRequestHeaders, 431, "headers_too_large", "The headers are too many or too long."),
    (errors.ExpectationFailed, 417, "expectation_failed", "Only Expect: 100-continue can be met."),
    (errors.UnsupportedTransferCoding, 501, "unknown_transfer_coding", "The transfer coding is not known here."),
    (errors.InvalidRequestLine, 400, "malformed_http", "The request line is not that of HTTP/1.1."),
    (errors.InvalidRequestMethod, 400, "malformed_http", "The method is not a valid one."),
    (errors.InvalidHTTPVersion, 400, "malformed_http", "Only HTTP/1.0 and HTTP/1.1 are spoken here."),
    (errors.InvalidHeaderName, 400, "malformed_http", "The name of a header holds characters that it may not."),
    (errors.InvalidHeader, 400, "malformed_http", "A header is not valid."),
    (errors.ParseException, 400, "malformed_http", "The request is not valid HTTP."),
)


def refusal(error: BaseException) -> bytes:
    """The whole HTTP answer to an error that ended the reading or the answering of a request."""
    with correlation_bound() as correlation_id:
        status, code, detail = _found(error)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request_failed", exc_info=error)
        else:
            log.info("request_refused", status=status, code=code, error=type(error).__name__)
        title = HTTPStatus(status).phrase
        body = orjson.dumps(problem_document(status=status, code=code, title=title, detail=detail))
    head = (
        f"HTTP/1.1 {status} {title}",
        "Connection: close",
        f"Content-Type: {MEDIA_TYPE}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        f"{HEADER}: {correlation_id}",
        "",
        "",
    )
    return "\r\n".join(head).encode() + body


def _found(error: BaseException) -> tuple[int, str, str]:
    if not isinstance(error, _FAULTS_OF_OURS):
        for kind, status, code, detail in _REFUSALS:
            if isinstance(error, kind):
                return status, code, detail
    return 500, "internal_error", "Something went wrong here; it has been logged."
