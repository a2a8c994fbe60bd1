"""The correlation id: one name for everything that one request or task set in motion, and its trace beside it.

It comes with the caller's ``X-Correlation-ID`` (when that is short and plain) or is made here; it is in every log
line, in every event's headers and in every answer. Work that starts later and elsewhere takes it up again from the
row or the record that carried it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

import structlog
import uuid_utils
from django.http import HttpRequest, HttpResponse

from operations import tracing
from operations.tracing import Attributes, Kind, Step, step, trace_id

HEADER = "X-Correlation-ID"
ID_LENGTH: Final = 128
NAMED: Final = 20
"""Correlation ids that one log line names, at most."""

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


@contextmanager
def work_bound(
    name: str,
    *,
    correlation: str = "",
    traceparent: str = "",
    kind: Kind = "internal",
    attributes: Attributes | None = None,
) -> Iterator[Step]:
    """One piece of work with a single cause: correlation id, trace, and both in its log lines.

    Args:
        name: what is done, without ids; the name of its span.
        correlation: id that came with the cause; empty or not plain: a new one.
        traceparent: that came with the cause; empty or not valid: a new trace.
        kind: as OpenTelemetry has it.
        attributes: of its span.
    """
    with (
        correlation_bound(correlation),
        step(name, parent=traceparent, kind=kind, attributes=attributes) as under_way,
        structlog.contextvars.bound_contextvars(trace_id=trace_id(under_way.traceparent)),
    ):
        yield under_way


def correlations_named(ids: Iterable[str]) -> list[str]:
    """Different correlation ids of a batch, in their order, as many as a log line may name."""
    found: dict[str, None] = {}
    for one in ids:
        if one and one not in found:
            if len(found) == NAMED:
                break
            found[one] = None
    return list(found)


class CorrelationMiddleware:
    """Bind the request's correlation id and trace, and give the id back in the answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        method = request.method or ""
        with work_bound(
            method,
            correlation=request.headers.get(HEADER, ""),
            traceparent=request.headers.get(tracing.HEADER, ""),
            kind="server",
            attributes={"http.request.method": method},
        ) as work:
            response = self.get_response(request)
            response[HEADER] = correlation_id()
            route = request.resolver_match.route if request.resolver_match else ""
            work.tell(
                name=f"{method} {route}".rstrip(),
                failed=str(response.status_code) if response.status_code >= 500 else "",
                attributes={"http.route": route, "http.response.status_code": response.status_code},
            )
            return response
