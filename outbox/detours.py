"""Detours: retries of failed events, and the way back to the log for the aggregates behind them.

Only the owner of a lane serves its detours, before new events and under the same epoch. So there is no second worker
that could overtake it, and no wake-up that could be lost between "nothing waits any more" and "here is one more".

People send aggregates back, or past an event, by changing a detour's ``next_sequence`` (``outbox.deciding``). They hold
the lane's row while they do, and so does the settle: it sees whether that happened while the events were on their way.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from django.db import connection

from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.failures import HALTING, Failed, failures_record, first_of_each_aggregate, successes_record
from outbox.leases import HeldLane, LaneLeases
from outbox.naming import batch_named, each_named
from outbox.reading import Waiting, aggregates_read
from outbox.settling import Count, lanes_count, lanes_hold
from outbox.subscribers import Failure
from outbox.worker import Worker

log = structlog.get_logger(__name__)

MOST_AT_ONCE: Final = 500
CRASHED_CODE: Final = "worker_died"
CRASHED_MESSAGE: Final = "The worker died each time it delivered this event."

# Whether there is one, by outbox_detour_due. A moment that is read once can be looked up in an index; the bare function
# would be asked for each row, and all that wait for people would be read.
DUE_SQL: Final = """
SELECT EXISTS (SELECT FROM outbox_detour WHERE subscription_id = %(name)s AND lane = ANY (%(lanes)s::smallint[])
                  AND due <= (SELECT clock_timestamp()))
"""
# Takes due detours and counts the attempt before it is made: an event that kills its worker must run out of attempts
# as well. The due moment goes ahead by a lease, in case that happens. ``started`` still being set says that it did;
# such a detour is a suspect and is started alone, or those that wait for their turn after the killer would run out of
# attempts with it, never tried. The one that is due longest decides whether it is a suspect's turn. A detour whose
# delivery was resolved by hand has no attempt to count. A lane that a person decides about is passed over until they
# are done: they move its detours too, and each would wait for the other's.
START_SQL: Final = """
WITH candidates AS (
  SELECT t.id, t.due, t.started,
         t.started OR EXISTS (SELECT FROM outbox_delivery d
                               WHERE d.subscription_id = %(name)s AND d.state = 'retrying'
                                 AND d.aggregate_type = t.aggregate_type AND d.aggregate_id = t.aggregate_id
                                 AND d.sequence = t.next_sequence AND d.error_class = 'crash') AS suspect
    FROM outbox_detour t
    JOIN outbox_lane l ON l.subscription_id = t.subscription_id AND l.lane = t.lane
    JOIN unnest(%(lanes)s::smallint[], %(epochs)s::bigint[]) AS h (lane, epoch)
      ON h.lane = l.lane AND h.epoch = l.epoch
   WHERE t.subscription_id = %(name)s AND t.due <= (SELECT clock_timestamp())
   ORDER BY t.due LIMIT %(most)s FOR UPDATE OF l SKIP LOCKED
), due AS (
  SELECT c.id, c.suspect FROM candidates c
    JOIN (SELECT id, suspect FROM candidates ORDER BY due, id LIMIT 1) AS first
      ON first.id = c.id OR NOT (first.suspect OR c.suspect)
), begun AS (
  UPDATE outbox_detour t SET started = true, due = clock_timestamp() + %(seconds)s * interval '1 second'
    FROM due WHERE t.id = due.id
  RETURNING t.id, t.lane, t.aggregate_type, t.aggregate_id, t.next_sequence, due.suspect
), counted AS (
  UPDATE outbox_delivery d SET attempts = d.attempts + 1, updated_at = clock_timestamp()
    FROM begun b
   WHERE d.subscription_id = %(name)s AND d.state = 'retrying' AND d.aggregate_type = b.aggregate_type
     AND d.aggregate_id = b.aggregate_id AND d.sequence = b.next_sequence
  RETURNING b.id, d.attempts, d.attempts_before
)
SELECT b.id, b.lane, b.aggregate_type, b.aggregate_id, b.next_sequence, b.suspect,
       COALESCE(c.attempts - c.attempts_before, 0), COALESCE(c.attempts, 0)
  FROM begun b LEFT JOIN counted c USING (id) ORDER BY b.id
"""
RESOLVE_SQL: Final = """
UPDATE outbox_delivery SET state = 'resolved', resolution = 'delivered', next_attempt_at = NULL,
       resolved_at = clock_timestamp(), updated_at = clock_timestamp()
 WHERE subscription_id = %(name)s AND event_id = ANY (%(events)s::bigint[]) AND state IN ('retrying', 'dead')
RETURNING event_id, attempts
"""
# Where the detours are now: a person may have moved them while their events were on their way.
PLACES_SQL: Final = "SELECT id, next_sequence FROM outbox_detour WHERE id = ANY (%(ids)s::bigint[])"
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
        attempts: of this round made for that event, this one included; 0 if it has no retrying delivery.
        number: attempts made for that event in all, this one included.
        alone: whether it may have killed a worker; then it is the only one.
        events: those to deliver now, in order.
        following: the sequence number after the last one that was read.
        all_read: whether none waits behind ``events``.
    """

    id: int
    held: HeldLane
    aggregate: tuple[str, str]
    next_sequence: int
    attempts: int
    number: int
    alone: bool
    events: list[Event]
    following: int
    all_read: bool


def detours_are_due(name: str, lanes: Collection[int]) -> bool:
    """Whether a detour of these lanes is due."""
    with connection.cursor() as cursor:
        cursor.execute(DUE_SQL, {"name": name, "lanes": list(lanes)})
        return bool(cursor.fetchone()[0])


def detours_start(
    name: str, leases: LaneLeases, *, seconds: float, batch: int, most: int, topics: frozenset[str] | None
) -> list[Serving]:
    """Begin to serve the detours that are due in our lanes, and read their events.

    Args:
        name: of the subscriber.
        leases: our lanes; all that went through them must be settled.
        seconds: when a detour is due again if we die now.
        batch: events of one aggregate at a time.
        most: detours at a time.
        topics: of the subscriber.
    """
    held = list(leases.held.values())
    values = {"lanes": [lane.lane for lane in held], "epochs": [lane.epoch for lane in held]}
    with connection.cursor() as cursor:
        cursor.execute(START_SQL, {"name": name, "most": most, "seconds": seconds, **values})
        rows = cursor.fetchall()
    if not rows:
        return []
    for row in rows:
        # A person made it: from now on new events of this aggregate wait behind it.
        leases.held[row[1]].blocked.add((row[2], row[3]))
    waiting = [Waiting(row[2], row[3], row[4], leases.held[row[1]].cursor) for row in rows]
    read = aggregates_read(waiting, batch, topics)
    return [
        Serving(
            id=row[0],
            held=leases.held[row[1]],
            aggregate=(row[2], row[3]),
            next_sequence=row[4],
            attempts=row[6],
            number=row[7],
            alone=row[5],
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


@dataclass(slots=True)
class _Sorted:
    """What becomes of detours that were served."""

    through: list[Event] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    advanced: list[tuple[int, int]] = field(default_factory=list)
    finished: dict[int, tuple[str, str]] = field(default_factory=dict)
    counts: dict[int, Count] = field(default_factory=dict)
    retried: list[str] = field(default_factory=list)


def detours_settle(
    worker: Worker,
    served: Sequence[Serving],
    failures: Sequence[Failure],
    untried: Mapping[tuple[str, str], int],
) -> dict[int, tuple[str, str]]:
    """Record what became of detours, in the current transaction, for the lanes that are still ours.

    Args:
        worker: who served them.
        served: the detours.
        failures: what failed of their events; all else that was tried went through.
        untried: by aggregate, the sequence number from which on nothing was tried.

    Returns:
        By id, the aggregates that are back on the log.
    """
    name = worker.name
    kept = lanes_hold(name, {one.held.lane: one.held for one in served}.values())
    with connection.cursor() as cursor:
        cursor.execute(PLACES_SQL, {"ids": [one.id for one in served]})
        places: dict[int, int] = dict(cursor.fetchall())
    by_aggregate = {failure.event.aggregate: failure for failure in first_of_each_aggregate(failures)}
    result = _Sorted()
    for one in served:
        if one.held.lane in kept and one.id in places:
            aggregate = one.aggregate
            _sort(one, places[one.id], by_aggregate.get(aggregate), untried.get(aggregate), worker, result)
    with connection.cursor() as cursor:
        cursor.execute(RESOLVE_SQL, {"name": name, "events": [event.id for event in result.through]})
        numbers: dict[int, int] = dict(cursor.fetchall())
        cursor.execute(UNDO_SQL, {"name": name, "ids": result.undone})
        advanced = result.advanced
        cursor.execute(ADVANCE_SQL, {"ids": [one[0] for one in advanced], "next": [one[1] for one in advanced]})
        cursor.execute(FINISH_SQL, {"ids": list(result.finished)})
    lanes_count(name, result.counts)
    successes_record(worker.handling, worker.successes(result.through, numbers))
    dead = failures_record(worker.handling, result.failed, onwards=True)
    worker.tally.add(
        [event.topic for event in result.through],
        [failed.failure.event.topic for failed in result.failed],
        result.retried,
    )
    if events := [event for one in served for event in one.events]:
        log.info(
            "events_retried",
            subscriber=name,
            detours=len(served),
            finished=len(result.finished),
            failed=len(result.failed),
            dead=dead,
            **batch_named(events),
        )
        each_named("event_retried", name, events)
    return result.finished


def _sort(
    one: Serving, place: int, failure: Failure | None, untried: int | None, worker: Worker, result: _Sorted
) -> None:
    """Decide what becomes of one detour, which a person may have moved to ``place`` meanwhile."""
    if place < one.next_sequence:
        # Sent back: all of it comes again from there, in order, whatever became of it now.
        result.advanced.append((one.id, place))
        return
    halted = untried is not None
    stop = one.following if untried is None else untried
    if failure is not None:
        halted, stop = failure.error_class in HALTING, failure.event.sequence
    through = [event for event in one.events if event.sequence < stop]
    result.through += through
    count = result.counts.setdefault(one.held.lane, Count())
    count.processed += len(through)
    if one.attempts and (through or failure is not None):
        count.retries += 1
        result.retried += [event.topic for event in one.events[:1]]
    if (failure is not None or halted) and stop < place:
        # It was skipped while it was on its way: that it failed does not matter any more.
        result.advanced.append((one.id, place))
    elif halted:
        if through:
            result.advanced.append((one.id, stop))
        else:
            result.undone.append(one.id)
    elif failure is not None:
        count.errors += 1
        counted = stop == one.next_sequence and one.attempts > 0
        result.failed.append(worker.failed(failure, one.attempts if counted else 1, counted=counted))
    elif one.all_read and stop >= place:
        result.finished[one.id] = one.aggregate
    else:
        result.advanced.append((one.id, max(stop, place)))
