"""The correlation id: one name for everything that one request or task set in motion.

It comes with the caller's ``X-Correlation-ID`` (when that is short and plain) or is made here; it is in every log
line, in every event's headers and in every answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog
import uuid_utils
from django.http import HttpRequest, HttpResponse

HEADER = "X-Correlation-ID"
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_current: ContextVar[str] = ContextVar("correlation_id", default="")


def correlation_id() -> str:
    """The correlation id of the work under way, or the empty string outside of any."""
    return _current.get()


@contextmanager
def correlation_bound(value: str = "") -> Iterator[str]:
    """Bind ``value`` (or a new id, when it is empty or not plain) as the correlation id of the block."""
    bound = value if _PLAIN.match(value) else str(uuid_utils.uuid7())
    token = _current.set(bound)
    try:
        with structlog.contextvars.bound_contextvars(correlation_id=bound):
            yield bound
    finally:
        _current.reset(token)


class CorrelationMiddleware:
    """Bind the request's correlation id and give it back in the answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with correlation_bound(request.headers.get(HEADER, "")) as value:
            response = self.get_response(request)
            response[HEADER] = value
            return response
