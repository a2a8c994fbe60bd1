"""Computing the rows of aggregates anew from the log, without anybody seeing them half done.

An event that is applied again on its own could move a row back to an older state, or bring one back that is gone. So
nothing is ever applied again on its own: all events of its aggregate are, from the first to the checkpoint, after the
rows were deleted and in the same transaction. What comes out is the state at the checkpoint, whatever was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

from django.db import transaction

from outbox.events import Event
from outbox.reading import Waiting, aggregates_read
from outbox.retention import log_is_whole
from projections.applying import Aggregate, events_apply
from projections.batches import aggregates_waiting
from projections.models import Build
from projections.models.failure import PUT_RIGHT
from projections.projection import Batch, Projection
from projections.retries import passed_over

_ALL: Final = 2**31 - 1


class Recomputed(Enum):
    """What became of an aggregate."""

    DONE = "done"
    GONE = "the first events of it were removed by retention"
    WAITS = "waits behind a failure"
    KEPT = "keeps what a person put right"
    FAILED = "an event of it cannot be applied any more"


class _Failed(Exception):
    """An event cannot be applied; the savepoint is rolled back."""


def aggregates_recompute(
    projection: Projection, build: Build, aggregates: Iterable[Aggregate], *, keeps_put_right: bool = True
) -> dict[Aggregate, Recomputed]:
    """Compute the rows of aggregates anew; the caller holds the lock of the build's row, in a transaction.

    An aggregate that cannot be computed any more keeps the rows that it has.

    Args:
        projection: keyed by the aggregates' type.
        build: as it was read under its lock.
        aggregates: which.
        keeps_put_right: leave alone what a person put right, by hand or with a compensation: it does not follow from
            the log, and would be lost.
    """
    wanted = set(aggregates)
    waiting = aggregates_waiting(build.pk, wanted)
    result = dict.fromkeys(waiting, Recomputed.WAITS)
    rest = sorted(wanted - waiting)
    if not rest:
        return result
    read = aggregates_read([Waiting(*one, 1, build.cursor) for one in rest], _ALL, projection.topics)
    events = {one: read[one][0] for one in rest}
    # Of an aggregate without its first events nothing can be computed but wrong rows.
    gone = [] if log_is_whole(projection.topics) else [one for one in rest if not _has_first(events[one])]
    result |= dict.fromkeys(gone, Recomputed.GONE)
    rest = [one for one in rest if one not in gone]
    events = {one: events[one] for one in rest}
    held_back = passed_over(build.pk, [event for one in rest for event in events[one]])
    if keeps_put_right:
        put_right = {event for event, strategy in held_back.items() if strategy in PUT_RIGHT}
        kept = [one for one in rest if any(event.id in put_right for event in events[one])]
        result |= dict.fromkeys(kept, Recomputed.KEPT)
        rest = [one for one in rest if one not in result]
        events = {one: events[one] for one in rest}
    events = {one: [event for event in found if event.id not in held_back] for one, found in events.items()}
    if _all_or_none(projection, build, events):
        return result | dict.fromkeys(rest, Recomputed.DONE)
    for one in rest:
        done = _all_or_none(projection, build, {one: events[one]})
        result[one] = Recomputed.DONE if done else Recomputed.FAILED
    return result


def _has_first(events: Sequence[Event]) -> bool:
    return bool(events) and events[0].sequence == 1


def _all_or_none(projection: Projection, build: Build, events: dict[Aggregate, list[Event]]) -> bool:
    first: Sequence[Event] = [found[0] for found in events.values() if found]
    if not first:
        return True
    try:
        with transaction.atomic():
            projection.forget(Batch(first, build.pk))
            if events_apply(projection, build.pk, sorted(event for found in events.values() for event in found)):
                raise _Failed
    except _Failed:
        return False
    return True
