"""Detours: retries of failed events, and the way back to the log for the aggregates behind them.

Only the owner of a lane serves its detours, before new events and under the same epoch. So there is no second worker
that could overtake it, and no wake-up that could be lost between "nothing waits any more" and "here is one more".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from django.db import connection

from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.failures import HALTING, Failed, failures_record, first_of_each_aggregate
from outbox.leases import HeldLane, LaneLeases
from outbox.reading import Waiting, aggregates_read
from outbox.settling import Count, lanes_count, lanes_hold
from outbox.subscribers import Failure

log = structlog.get_logger(__name__)

MOST_AT_ONCE: Final = 500
CRASHED_CODE: Final = "worker_died"
CRASHED_MESSAGE: Final = "The worker died each time it delivered this event."

# Takes due detours and counts the attempt before it is made: an event that kills its worker must run out of attempts
# as well. The due moment goes ahead by a lease, in case that happens. ``started`` still being set says that it did;
# such a detour is served alone. A detour whose delivery was resolved by hand has no attempt to count.
START_SQL: Final = """
WITH due AS (
  SELECT t.id, t.started FROM outbox_detour t
    JOIN outbox_lane l ON l.subscription_id = t.subscription_id AND l.lane = t.lane
    JOIN unnest(%(lanes)s::smallint[], %(epochs)s::bigint[]) AS h (lane, epoch)
      ON h.lane = l.lane AND h.epoch = l.epoch
   WHERE t.subscription_id = %(name)s AND t.due <= clock_timestamp()
   ORDER BY t.due LIMIT %(most)s
), begun AS (
  UPDATE outbox_detour t SET started = true, due = clock_timestamp() + %(seconds)s * interval '1 second'
    FROM due WHERE t.id = due.id
  RETURNING t.id, t.lane, t.aggregate_type, t.aggregate_id, t.next_sequence, due.started
), counted AS (
  UPDATE outbox_delivery d SET attempts = d.attempts + 1, updated_at = clock_timestamp()
    FROM begun b
   WHERE d.subscription_id = %(name)s AND d.state = 'retrying' AND d.aggregate_type = b.aggregate_type
     AND d.aggregate_id = b.aggregate_id AND d.sequence = b.next_sequence
  RETURNING b.id, d.attempts, d.error_class
)
SELECT b.id, b.lane, b.aggregate_type, b.aggregate_id, b.next_sequence, b.started, COALESCE(c.attempts, 0),
       COALESCE(c.error_class, '')
  FROM begun b LEFT JOIN counted c USING (id) ORDER BY b.id
"""
RESOLVE_SQL: Final = """
UPDATE outbox_delivery SET state = 'resolved', next_attempt_at = NULL, resolved_at = clock_timestamp(),
       updated_at = clock_timestamp()
 WHERE subscription_id = %(name)s AND event_id = ANY (%(events)s::bigint[]) AND state IN ('retrying', 'dead')
"""
ADVANCE_SQL: Final = """
UPDATE outbox_detour t SET next_sequence = g.next_sequence, due = clock_timestamp(), started = false
  FROM unnest(%(ids)s::bigint[], %(next)s::bigint[]) AS g (id, next_sequence) WHERE t.id = g.id
"""
FINISH_SQL: Final = "DELETE FROM outbox_detour WHERE id = ANY (%(ids)s::bigint[])"
# An outage uses no attempt.
UNDO_SQL: Final = """
WITH undone AS (
  UPDATE outbox_detour SET started = false, due = clock_timestamp()
   WHERE id = ANY (%(ids)s::bigint[]) RETURNING aggregate_type, aggregate_id, next_sequence
)
UPDATE outbox_delivery d SET attempts = d.attempts - 1
  FROM undone u
 WHERE d.subscription_id = %(name)s AND d.state = 'retrying' AND d.aggregate_type = u.aggregate_type
   AND d.aggregate_id = u.aggregate_id AND d.sequence = u.next_sequence AND d.attempts > 0
"""


@dataclass(frozen=True, slots=True)
class Serving:
    """A detour that is being served.

    Attributes:
        id: of the detour.
        held: its lane.
        aggregate: type and id.
        next_sequence: of the event that failed.
        attempts: made for that event, this one included; 0 if it was resolved by hand.
        alone: whether it may have killed a worker.
        events: those to deliver now, in order.
        following: the sequence number after the last one that was read.
        all_read: whether none waits behind ``events``.
    """

    id: int
    held: HeldLane
    aggregate: tuple[str, str]
    next_sequence: int
    attempts: int
    alone: bool
    events: list[Event]
    following: int
    all_read: bool


def detours_start(
    name: str, leases: LaneLeases, *, seconds: float, batch: int, topics: frozenset[str] | None
) -> list[Serving]:
    """Begin to serve the detours that are due in our lanes, and read their events.

    Args:
        name: of the subscriber.
        leases: our lanes; all that went through them must be settled.
        seconds: when a detour is due again if we die now.
        batch: events of one aggregate at a time.
        topics: of the subscriber.
    """
    held = [lane for lane in leases.held.values() if lane.blocked]
    if not held:
        return []
    values = {"lanes": [lane.lane for lane in held], "epochs": [lane.epoch for lane in held]}
    with connection.cursor() as cursor:
        cursor.execute(START_SQL, {"name": name, "most": MOST_AT_ONCE, "seconds": seconds, **values})
        rows = cursor.fetchall()
    if not rows:
        return []
    waiting = [Waiting(row[2], row[3], row[4], leases.held[row[1]].cursor) for row in rows]
    read = aggregates_read(waiting, batch, topics)
    return [
        Serving(
            id=row[0],
            held=leases.held[row[1]],
            aggregate=(row[2], row[3]),
            next_sequence=row[4],
            attempts=row[6],
            alone=row[5] or row[7] == ErrorClass.CRASH,
            events=read[row[2], row[3]][0],
            following=read[row[2], row[3]][1],
            all_read=read[row[2], row[3]][2],
        )
        for row in rows
    ]


def crashed(serving: Serving, most: int) -> Failure | None:
    """The failure of a detour whose attempts ran out because the worker died in each of them."""
    if serving.attempts <= most or not serving.events:
        return None
    return Failure(serving.events[0], ErrorClass.PERMANENT, CRASHED_CODE, CRASHED_MESSAGE)


def detours_settle(
    name: str, ladder: Sequence[float], served: Sequence[Serving], failures: Sequence[Failure]
) -> dict[int, tuple[str, str]]:
    """Record what became of detours, in the current transaction, for the lanes that are still ours.

    Args:
        name: of the subscriber.
        ladder: upper bounds of the waits before each retry.
        served: the detours.
        failures: what failed of their events; all else went through.

    Returns:
        By id, the aggregates that are back on the log.
    """
    kept = lanes_hold(name, {one.held.lane: one.held for one in served}.values())
    by_aggregate = {failure.event.aggregate: failure for failure in first_of_each_aggregate(failures)}
    resolved: list[int] = []
    failed: list[Failed] = []
    undone: list[int] = []
    advanced: list[tuple[int, int]] = []
    finished: dict[int, tuple[str, str]] = {}
    counts: dict[int, Count] = {}
    for one in served:
        if one.held.lane not in kept:
            continue
        failure = by_aggregate.get(one.aggregate)
        stop = failure.event.sequence if failure else one.following
        through = [event.id for event in one.events if event.sequence < stop]
        resolved += through
        count = counts.setdefault(one.held.lane, Count())
        count.processed += len(through)
        count.retries += 1 if one.attempts else 0
        if failure is not None and failure.error_class in HALTING:
            if through:
                advanced.append((one.id, stop))
            else:
                undone.append(one.id)
        elif failure is not None:
            count.errors += 1
            failed.append(Failed(failure, max(one.attempts, 1) if stop == one.next_sequence else 1))
        elif one.all_read:
            finished[one.id] = one.aggregate
        else:
            advanced.append((one.id, stop))
    with connection.cursor() as cursor:
        cursor.execute(RESOLVE_SQL, {"name": name, "events": resolved})
        cursor.execute(UNDO_SQL, {"name": name, "ids": undone})
        cursor.execute(ADVANCE_SQL, {"ids": [one[0] for one in advanced], "next": [one[1] for one in advanced]})
        cursor.execute(FINISH_SQL, {"ids": list(finished)})
    lanes_count(name, counts)
    dead = failures_record(name, ladder, failed)
    log.info(
        "detours_served", subscriber=name, detours=len(served), finished=len(finished), failed=len(failed), dead=dead
    )
    return finished
