"""How a batch of events is named in log lines and traces: by its size and a few ids, whatever its size."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import structlog

from operations.correlation import correlation_bound, correlations_named
from operations.tracing import LINKS, Kind, step
from outbox.events import Event

_each = logging.getLogger(__name__)
log = structlog.get_logger(__name__)


def batch_named(events: Sequence[Event]) -> dict[str, Any]:
    """Fields of a log line about these events; at least one."""
    return {
        "events": len(events),
        "first_id": min(event.id for event in events),
        "last_id": max(event.id for event in events),
        "correlation_ids": correlations_named(event.correlation_id for event in events),
    }


@contextmanager
def batch_step(name: str, events: Sequence[Event], *, kind: Kind) -> Iterator[None]:
    """A step of the traces that these events came with.

    All of one cause go on in its trace and under its correlation id. A batch of many causes has a trace of its own,
    which is linked to theirs.
    """
    first = events[0] if events else None
    correlation = first.correlation_id if first and _all_alike(events, "correlation_id") else ""
    parent = first.traceparent if first and _all_alike(events, "traceparent") else ""
    links = () if parent else (event.traceparent for event in islice(events, LINKS))
    about = {"messaging.batch.message_count": len(events)}
    with step(name, parent=parent, kind=kind, attributes=about, links=links):
        if correlation:
            with correlation_bound(correlation):
                yield
        else:
            yield


def each_named(what: str, subscriber: str, events: Sequence[Event]) -> None:
    """One line for each event, for those who ask for all of it with LOG_LEVEL=DEBUG."""
    if not _each.isEnabledFor(logging.DEBUG):
        return
    for event in events:
        log.debug(
            what,
            subscriber=subscriber,
            event_id=event.id,
            uid=event.uid_text,
            topic=event.topic,
            type=event.type,
            sequence=event.sequence,
            correlation_id=event.correlation_id,
        )


def _all_alike(events: Sequence[Event], name: str) -> bool:
    first = getattr(events[0], name)
    return all(getattr(event, name) == first for event in events)
