"""Retries: serves the detours that are due, under the lock of the build and before new events.

Only the build's holder serves them, so nothing overtakes: when all events of an aggregate up to the checkpoint went
through, its detour is deleted in the same transaction, and the aggregate is back on the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from django.db import connection

from outbox.events import Event
from outbox.reading import Waiting, aggregates_read
from projections.applying import Aggregate, Failed, events_apply, those_through
from projections.builds import HeldBuild, Progress, build_fenced, build_move
from projections.failures import LADDER, failures_record
from projections.projection import Batch

log = structlog.get_logger(__name__)

MOST_AT_ONCE: Final = 200
REBUILT_AT_ONCE: Final = 20

# The clock is read once, in a subquery: as a bare condition it is volatile, and every open detour would be read.
DUE_SQL: Final = """
SELECT d.id, d.aggregate_type, d.aggregate_id, d.next_sequence, d.rebuild, COALESCE(f.event_id, 0),
       COALESCE(f.attempts, 0), COALESCE(f.sequence, 9223372036854775807)
  FROM projections_detour d
  LEFT JOIN projections_failure f
    ON f.build_id = d.build_id AND f.aggregate_type = d.aggregate_type AND f.aggregate_id = d.aggregate_id
       AND f.state IN ('retrying', 'manual')
 WHERE d.build_id = %(build)s AND d.due <= (SELECT clock_timestamp())
 ORDER BY d.due LIMIT %(most)s
"""
IS_DUE_SQL: Final = """
SELECT EXISTS (SELECT FROM projections_detour WHERE build_id = %s AND due <= (SELECT clock_timestamp()))
"""
# An event that kills its worker must run out of attempts as well: they are counted before they are made.
COUNT_SQL: Final = """
UPDATE projections_failure f
   SET attempts = f.attempts + 1,
       state = CASE WHEN f.attempts >= %(most)s THEN 'manual' ELSE f.state END,
       next_retry_at = CASE WHEN f.attempts >= %(most)s THEN NULL ELSE f.next_retry_at END
 WHERE f.build_id = %(build)s AND f.event_id = %(event)s AND f.state IN ('retrying', 'manual')
RETURNING f.state
"""
GIVE_UP_SQL: Final = "UPDATE projections_detour SET due = NULL WHERE id = %s"
RESOLVE_SQL: Final = """
UPDATE projections_failure
   SET state = 'resolved', next_retry_at = NULL, resolved_at = clock_timestamp()
 WHERE build_id = %(build)s AND event_id = ANY (%(events)s::bigint[]) AND state IN ('retrying', 'manual')
"""
ADVANCE_SQL: Final = """
UPDATE projections_detour t SET next_sequence = g.next_sequence, due = clock_timestamp(), rebuild = false
  FROM unnest(%(ids)s::bigint[], %(next)s::bigint[]) AS g (id, next_sequence) WHERE t.id = g.id
"""
FINISH_SQL: Final = "DELETE FROM projections_detour WHERE id = ANY (%(ids)s::bigint[])"
# Events that a person decided to go on without; a rebuild of their aggregate goes on without them too.
PASSED_OVER_SQL: Final = """
SELECT event_id, strategy FROM projections_failure
 WHERE build_id = %(build)s AND event_id = ANY (%(events)s::bigint[]) AND state = 'resolved'
   AND strategy IN ('skip', 'manual_fix', 'compensate')
"""


@dataclass(slots=True)
class Serving:
    """A detour that is being served.

    Attributes:
        id: of the detour.
        aggregate: type and id.
        next_sequence: of the event that it waits for.
        rebuild: whether its rows are computed anew.
        event_id: of the open failure; 0 if there is none.
        attempts: made for that event so far.
        counted_from: of a rebuild: events before this sequence number took effect before, and were counted then.
        events: those to apply now, in order.
        following: the sequence number after the last one that was read.
        all_read: whether none waits behind ``events``.
    """

    id: int
    aggregate: Aggregate
    next_sequence: int
    rebuild: bool
    event_id: int
    attempts: int
    counted_from: int
    events: Sequence[Event] = ()
    following: int = 0
    all_read: bool = False


def retries_serve(held: HeldBuild, *, batch: int, seconds: float) -> int:
    """Serve the detours that are due; how many events are done with.

    Args:
        held: the build.
        batch: events of one aggregate at a time.
        seconds: length of the lease.

    Raises:
        LeaseLost: somebody else has claimed the build.
        django.db.Error: the database is in trouble.
    """
    with connection.cursor() as cursor:
        cursor.execute(IS_DUE_SQL, [held.id])
        if not cursor.fetchone()[0]:
            return 0
    counted = False
    if held.strikes:
        counted = _count_start(held, seconds)
    with build_fenced(held, seconds=seconds):
        served = _due(held, 1 if held.strikes else MOST_AT_ONCE)
        if not served:
            return 1 if counted else 0
        _read(held, served, batch)
        return _serve(held, served, seconds=seconds, counted=counted)


def _count_start(held: HeldBuild, seconds: float) -> bool:
    """Count the attempt at the first due detour, and leave it to a person if there were too many."""
    with build_fenced(held, seconds=seconds):
        served = _due(held, 1)
        if not served or not served[0].event_id:
            return False
        values = {"build": held.id, "event": served[0].event_id, "most": len(LADDER) + 1}
        with connection.cursor() as cursor:
            cursor.execute(COUNT_SQL, values)
            row = cursor.fetchone()
            if row and row[0] == "manual":
                cursor.execute(GIVE_UP_SQL, [served[0].id])
    return True


def _due(held: HeldBuild, most: int) -> list[Serving]:
    with connection.cursor() as cursor:
        cursor.execute(DUE_SQL, {"build": held.id, "most": most})
        served = [Serving(row[0], (row[1], row[2]), *row[3:]) for row in cursor.fetchall()]
    rebuilt = [one for one in served if one.rebuild]
    return rebuilt[:REBUILT_AT_ONCE] or served


def _read(held: HeldBuild, served: Sequence[Serving], batch: int) -> None:
    # All of an aggregate that is computed anew goes into one transaction: no reader sees half of it.
    limit = 2**31 - 1 if served[0].rebuild else batch
    waiting = [Waiting(*one.aggregate, one.next_sequence, held.cursor) for one in served]
    read = aggregates_read(waiting, limit, held.projection.topics)
    for one in served:
        one.events, one.following, one.all_read = read[one.aggregate]
        if one.rebuild:
            held_back = passed_over(held.id, one.events)
            one.events = [event for event in one.events if event.id not in held_back]


def _serve(held: HeldBuild, served: Sequence[Serving], *, seconds: float, counted: bool) -> int:
    for one in served:
        if one.rebuild and one.events:
            held.projection.forget(Batch(one.events[:1], held.id))
    events = sorted(event for one in served for event in one.events)
    failures = events_apply(held.projection, held.id, events) if events else []
    through = those_through(events, failures)
    attempts = {one.event_id: one.attempts if counted else one.attempts + 1 for one in served if one.event_id}
    _settle(held, served, failures, [event.id for event in through])
    manual = failures_record(held.projection, held.id, failures, attempts)
    counted_from = {one.aggregate: one.counted_from if one.rebuild else 0 for one in served}
    first_time = sum(event.sequence >= counted_from[event.aggregate] for event in through)
    progress = Progress(held.cursor, first_time, len(failures))
    build_move(held, progress, seconds=seconds)
    log.info(
        "projection_retried",
        projection=held.projection.name,
        build=held.id,
        aggregates=len(served),
        events=len(through),
        failed=len(failures),
        manual=manual,
    )
    return max(1, len(events))


def _settle(held: HeldBuild, served: Sequence[Serving], failures: Sequence[Failed], through: list[int]) -> None:
    failed = {failure.event.aggregate for failure in failures}
    finished = [one.id for one in served if one.aggregate not in failed and one.all_read]
    advanced = [(one.id, one.following) for one in served if one.aggregate not in failed and not one.all_read]
    # What a failure waited for is through, also when the event is one that the projection passes over.
    resolved = through + [one.event_id for one in served if one.event_id and one.aggregate not in failed]
    with connection.cursor() as cursor:
        cursor.execute(RESOLVE_SQL, {"build": held.id, "events": resolved})
        cursor.execute(ADVANCE_SQL, {"ids": [one[0] for one in advanced], "next": [one[1] for one in advanced]})
        cursor.execute(FINISH_SQL, {"ids": finished})


def passed_over(build_id: int, events: Sequence[Event]) -> dict[int, str]:
    """The ids of those events that a person decided to go on without, each with the strategy."""
    with connection.cursor() as cursor:
        cursor.execute(PASSED_OVER_SQL, {"build": build_id, "events": [event.id for event in events]})
        return dict(cursor.fetchall())
