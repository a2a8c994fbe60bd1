"""Reading the log: the next events of some lanes, or of aggregates on a detour."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

from outbox.events import Event
from outbox.lanes import LANES
from outbox.leases import HeldLane

# An event is fetched by its id for each place of the log (LIMIT 1 keeps the planner from joining the tables as a
# whole). Payloads of topics that the subscriber did not ask for are left where they are; its cursor passes them.
COLUMNS: Final = {
    "topic": "e.topic",
    "type": "e.type",
    "aggregate_type": "e.aggregate_type",
    "aggregate_id": "e.aggregate_id",
    "sequence": "e.sequence",
    "schema_version": "e.schema_version",
    "payload_text": (
        "CASE WHEN %(topics)s::text[] IS NULL OR e.topic = ANY (%(topics)s::text[]) THEN e.payload::text END"
    ),
    "headers_text": "e.headers::text",
    "origin": "e.origin",
    "correlation_id": "e.correlation_id",
    "causation_id": "e.causation_id",
    "traceparent": "e.traceparent",
    "created_text": """to_char(e.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
}
"""The columns of an event's row, by the names and in the order of the last fields of ``Event``."""

_EVENT: Final = ", ".join(COLUMNS.values())
LANES_SQL: Final = f"""
SELECT l.position, e.id, e.uid::text, l.lane, {_EVENT}
  FROM unnest(%(lanes)s::smallint[], %(cursors)s::bigint[], %(limits)s::int[]) AS k (lane, after, most)
 CROSS JOIN LATERAL (SELECT lane, position, event_id FROM outbox_log
                      WHERE lane = k.lane AND position > k.after ORDER BY position LIMIT k.most) AS l
 CROSS JOIN LATERAL (SELECT * FROM outbox_event WHERE id = l.event_id LIMIT 1) AS e
"""  # noqa: S608 - constants only

# The events of an aggregate from a sequence number on, as far as its lane has passed them.
AGGREGATES_SQL: Final = f"""
SELECT l.position, e.id, e.uid::text, e.lane, {_EVENT}
  FROM unnest(%(types)s::text[], %(ids)s::text[], %(sequences)s::bigint[], %(cursors)s::bigint[])
       AS k (aggregate_type, aggregate_id, sequence, passed)
 CROSS JOIN LATERAL (SELECT * FROM outbox_event
                      WHERE aggregate_type = k.aggregate_type AND aggregate_id = k.aggregate_id
                        AND sequence >= k.sequence ORDER BY sequence LIMIT %(limit)s) AS e
 CROSS JOIN LATERAL (SELECT position FROM outbox_log WHERE event_id = e.id LIMIT 1) AS l
 WHERE l.position <= k.passed
"""  # noqa: S608 - constants only

# How many places of the log lie between two positions, counted as far as a limit.
BETWEEN_SQL: Final = """
SELECT count(*) FROM (
  SELECT 1 FROM generate_series(0, %(lanes)s - 1) AS k (lane)
   CROSS JOIN LATERAL (SELECT 1 FROM outbox_log
                        WHERE lane = k.lane AND position > %(after)s AND position <= %(upto)s LIMIT %(most)s) AS l
   LIMIT %(most)s) AS found
"""

_PAYLOAD: Final = Event._fields.index("payload_text")
_LANE: Final = Event._fields.index("lane")


@dataclass(slots=True)
class LaneRead:
    """What was read of one lane.

    Attributes:
        held: the lane.
        events: the wanted ones, in order.
        last: the last position that was read, wanted or not.
        short: fewer than asked for, so the lane is read up to the head that was known before.
    """

    held: HeldLane
    events: list[Event]
    last: int
    short: bool

    def reach(self, head: int) -> int:
        """Where the cursor goes when all of it is done with; a lane that is read to its end goes on to the head."""
        return max(self.last, head) if self.short else self.last

    def cut(self, last: int) -> bool:
        """Leave out what comes after this position; whether events are left."""
        if self.events and self.events[-1].position > last:
            self.events = [event for event in self.events if event.position <= last]
            self.last = self.events[-1].position if self.events else self.held.cursor
            self.short = False
        return bool(self.events)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An aggregate on a detour: where its next event is, and how far its lane has gone."""

    aggregate_type: str
    aggregate_id: str
    next_sequence: int
    passed: int


def lanes_read(lanes: Sequence[HeldLane], limits: Sequence[int], topics: Collection[str] | None) -> list[LaneRead]:
    """The next events of each lane, at most ``limits`` of each, in the order of the log."""
    values = {"lanes": [held.lane for held in lanes], "cursors": [held.cursor for held in lanes], "limits": limits}
    by_lane: dict[int, list[Any]] = {held.lane: [] for held in lanes}
    for row in _rows(LANES_SQL, values, topics):
        by_lane[row[_LANE]].append(row)
    found = []
    for held, limit in zip(lanes, limits, strict=True):
        rows = by_lane[held.lane]
        rows.sort()
        events = [Event._make(row) for row in rows if row[_PAYLOAD] is not None]
        found.append(LaneRead(held, events, rows[-1][0] if rows else held.cursor, len(rows) < limit))
    return found


def aggregates_read(
    waiting: Sequence[Waiting], limit: int, topics: Collection[str] | None
) -> dict[tuple[str, str], tuple[list[Event], int, bool]]:
    """The next events of each aggregate that its lane has passed.

    Returns:
        By aggregate: the wanted events in order, the sequence number after the last one read, and whether those were
        all that there are up to the cursor.
    """
    values = {
        "types": [one.aggregate_type for one in waiting],
        "ids": [one.aggregate_id for one in waiting],
        "sequences": [one.next_sequence for one in waiting],
        "cursors": [one.passed for one in waiting],
        "limit": limit,
    }
    by_aggregate: dict[tuple[str, str], list[Event]] = {(one.aggregate_type, one.aggregate_id): [] for one in waiting}
    for row in sorted(_rows(AGGREGATES_SQL, values, topics)):
        event = Event._make(row)
        by_aggregate[event.aggregate].append(event)
    found = {}
    for one in waiting:
        events = by_aggregate[one.aggregate_type, one.aggregate_id]
        following = events[-1].sequence + 1 if events else one.next_sequence
        wanted = [event for event in events if event.payload_text is not None]
        found[one.aggregate_type, one.aggregate_id] = (wanted, following, len(events) < limit)
    return found


def places_between(after: int, upto: int, most: int) -> int:
    """How many events the log has beyond one position and up to another; ``most`` when there are as many or more.

    Positions have gaps where the log was pruned or a sequencing run was rolled back, so their distance is no count.
    """
    with connection.cursor() as cursor:
        cursor.execute(BETWEEN_SQL, {"lanes": LANES, "after": after, "upto": upto, "most": most})
        found: int = cursor.fetchone()[0]
        return found


def _rows(sql: str, values: dict[str, Any], topics: Collection[str] | None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {**values, "topics": sorted(topics) if topics is not None else None})
        rows: list[Any] = cursor.fetchall()
        return rows
