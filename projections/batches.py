"""Batches: events that were read are applied, and the checkpoint is moved, in one transaction."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from django.db import connection

from outbox.events import Event
from outbox.ordered import OrderedRead
from projections.applying import Aggregate, Failed, events_apply, those_through
from projections.builds import HeldBuild, Progress, build_fenced, build_move, build_start
from projections.errors import ErrorClass, LeaseLost
from projections.failures import failures_record
from projections.measuring import batch_measure

log = structlog.get_logger(__name__)

CRASHES: Final = 3
CRASHED: Final = ("worker_died", "Workers died while they applied this event.")

# Those of a batch's aggregates that wait on a detour.
WAITING_SQL: Final = """
SELECT d.aggregate_type, d.aggregate_id
  FROM unnest(%(types)s::text[], %(ids)s::text[]) AS k (aggregate_type, aggregate_id)
  JOIN projections_detour d
    ON d.build_id = %(build)s AND d.aggregate_type = k.aggregate_type AND d.aggregate_id = k.aggregate_id
"""


def batch_apply(held: HeldBuild, read: OrderedRead, *, limit: int, seconds: float) -> None:
    """Apply events and move the checkpoint, in one transaction or a savepoint of the current one.

    Args:
        held: the build; its checkpoint is moved here as well.
        read: what follows its checkpoint.
        limit: how many positions were asked for.
        seconds: length of the lease, which this renews.

    Raises:
        LeaseLost: somebody else has claimed the build; nothing of the batch was kept.
        django.db.Error: the database is in trouble; nothing of the batch was kept.
    """
    if read.reached == held.cursor:
        return
    projection = held.projection
    # A crowded lane cut the reading short, and not the end of the log: the place where workers died may be ahead still.
    calm = held.careful <= read.places or (read.places < limit and not read.crowded)
    kills = _kills(held, read)
    began = time.monotonic()
    with build_fenced(held, seconds=seconds):
        events = _unblocked(held, read.events) if held.detours else read.events
        if kills and events:
            failures = [Failed(events[0], ErrorClass.POISON, *CRASHED)]
        else:
            failures = events_apply(projection, held.id, events) if events else []
        through = those_through(events, failures)
        manual = failures_record(projection, held.id, failures)
        last = read.events[-1] if read.events else None
        progress = Progress(
            read.reached,
            len(through),
            len(failures),
            last.id if last else None,
            last.type if last else None,
            calm=calm,
        )
        build_move(held, progress, seconds=seconds)
        if events:
            batch_measure(held.id, events=len(through), failures=len(failures), seconds=time.monotonic() - began)
    held.cursor = read.reached
    held.detours = held.detours or bool(failures)
    held.careful = 0 if calm else held.careful - read.places
    held.strikes = 0 if calm else held.strikes
    if failures:
        log.warning(
            "projection_events_failed", projection=projection.name, build=held.id, failed=len(failures), manual=manual
        )


def aggregates_waiting(build_id: int, aggregates: set[Aggregate]) -> set[Aggregate]:
    """Those of the aggregates whose events wait behind one that failed."""
    if not aggregates:
        return set()
    ordered = sorted(aggregates)
    values: dict[str, Any] = {
        "build": build_id,
        "types": [one[0] for one in ordered],
        "ids": [one[1] for one in ordered],
    }
    with connection.cursor() as cursor:
        cursor.execute(WAITING_SQL, values)
        return {(row[0], row[1]) for row in cursor.fetchall()}


def _kills(held: HeldBuild, read: OrderedRead) -> bool:
    """Whether the one event that was read has cost too many workers their life; counted before it is tried again."""
    if not held.strikes or len(read.events) != 1:
        return False
    started = build_start(held)
    if started == 0:
        raise LeaseLost(LeaseLost.__doc__)
    return started > CRASHES


def _unblocked(held: HeldBuild, events: Sequence[Event]) -> Sequence[Event]:
    waiting = aggregates_waiting(held.id, {event.aggregate for event in events})
    if not waiting:
        return events
    return [event for event in events if event.aggregate not in waiting]
