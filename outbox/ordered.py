"""Reading the log as one sequence: the next events of all lanes together, in the order of their positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import itemgetter
from typing import Any, Final, overload

from django.db import connection

from outbox.events import Event
from outbox.lanes import LANES
from outbox.reading import COLUMNS

# The next places of each lane, merged up to the lowest last place of any lane that came back full: beyond it that lane
# may hold a smaller position that was not read. A lane that came back short is read to its end, and everything below
# what one snapshot shows is in that snapshot (see outbox/sequencing.py). There is no index on position alone.
_PLACES: Final = f"""
WITH places AS MATERIALIZED (
  SELECT l.lane, l.position, l.event_id
    FROM generate_series(0, {LANES - 1}) AS k (lane)
   CROSS JOIN LATERAL (SELECT lane, position, event_id FROM outbox_log
                        WHERE lane = k.lane AND position > %(after)s AND position <= %(upto)s
                        ORDER BY position LIMIT %(most)s) AS l
), bound AS (
  SELECT min(last) AS position
    FROM (SELECT max(position) AS last FROM places GROUP BY lane HAVING count(*) = %(most)s) AS full_lanes
), taken AS MATERIALIZED (
  SELECT * FROM places WHERE position <= COALESCE((SELECT position FROM bound), %(upto)s)
   ORDER BY position LIMIT %(limit)s
)"""  # noqa: S608 - constants only

# Each event by its id.
ORDERED_SQL: Final = f"""{_PLACES}
SELECT {{columns}}
  FROM taken l CROSS JOIN LATERAL (SELECT * FROM outbox_event WHERE id = l.event_id LIMIT 1) AS e
"""  # noqa: S608 - constants only
# Thousands of events are mostly neighbours: their ids follow their places closely. Then all of that range are read in
# one go and joined, for three quarters of the price; the plan takes longer to make. Where some are far apart (a
# transaction that was open for long), each is looked up.
WIDE_SQL: Final = f"""{_PLACES}, span AS MATERIALIZED (
  SELECT min(event_id) AS first, max(event_id) AS last, max(event_id) - min(event_id) < 2 * count(*) AS dense FROM taken
)
SELECT {{columns}}
  FROM taken l JOIN outbox_event e ON e.id = l.event_id
 WHERE (SELECT dense FROM span) AND e.id >= (SELECT first FROM span) AND e.id <= (SELECT last FROM span)
UNION ALL
SELECT {{columns}}
  FROM taken l CROSS JOIN LATERAL (SELECT * FROM outbox_event WHERE id = l.event_id LIMIT 1) AS e
 WHERE NOT (SELECT dense FROM span)
"""  # noqa: S608 - constants only
WIDE: Final = 4_000
"""Reads of so many places are made by ``WIDE_SQL``."""

END: Final = 2**63 - 1
DETAILS: Final = (
    "uid_text",
    "headers_text",
    "origin",
    "correlation_id",
    "causation_id",
    "traceparent",
    "created_text",
)
"""Fields of an event that are read on demand: together they take as long to write out and to parse as all others."""

_position: Final = itemgetter(0)
_lane: Final = itemgetter(Event._fields.index("lane"))
_PAYLOAD: Final = Event._fields.index("payload_text")
# ``Event._make`` without its frame of Python, which takes as long as all the rest of it.
_event: Final[Callable[[Any], Event]] = partial(tuple.__new__, Event)


class LogEvents(Sequence[Event]):
    """Events that are made of their rows whenever they are asked for.

    The garbage collector watches an ``Event`` as long as it lives; a plain tuple of plain values it forgets after one
    look. Thousands of events that lived as long as their batch had it go through all of the process again and again, a
    tenth of a second each time. Made anew for each pass over the batch they cost 0.2 microseconds and are gone at once.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Event]:
        return map(_event, self._rows)

    @overload
    def __getitem__(self, place: int) -> Event: ...

    @overload
    def __getitem__(self, place: slice) -> LogEvents: ...

    def __getitem__(self, place: int | slice) -> Event | LogEvents:
        return LogEvents(self._rows[place]) if isinstance(place, slice) else _event(self._rows[place])


@dataclass(frozen=True, slots=True)
class OrderedRead:
    """What was read of the log.

    Attributes:
        events: the wanted ones, in the order of their positions.
        reached: the last position that was read, wanted or not; where it began if there was nothing.
        places: how many positions were read.
        crowded: a full lane cut the reading short; more places of a lane at a time would read further.
    """

    events: LogEvents
    reached: int
    places: int
    crowded: bool


def ordered_read(
    *,
    after: int,
    limit: int,
    topics: Collection[str] | None,
    upto: int = END,
    per_lane: int | None = None,
    details: Collection[str] | None = None,
) -> OrderedRead:
    """The events after a position, in the order of the log; nothing that is visible is left out in between.

    Args:
        after: the last position that is done with.
        limit: positions at most.
        topics: the payloads of other topics are not read, and their events not returned; None wants all.
        upto: the last position that is wanted.
        per_lane: places of one lane at a time; None takes a little more than a lane's share of ``limit``.
        details: those of ``DETAILS`` that are wanted, the others are None; None wants all.
    """
    most = min(limit, per_lane or default_per_lane(limit))
    values = {
        "after": after,
        "upto": upto,
        "most": most,
        "limit": limit,
        "topics": sorted(topics) if topics is not None else None,
    }
    statement = _statement(None if details is None else frozenset(details), limit >= WIDE)
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows = cursor.fetchall()
    rows.sort(key=_position)
    events = LogEvents([row for row in rows if row[_PAYLOAD] is not None])
    # The lane that bounds the reading has all of its places below the bound.
    crowded = most <= len(rows) < limit and max(Counter(map(_lane, rows)).values()) == most
    return OrderedRead(events, rows[-1][0] if rows else after, len(rows), crowded)


@lru_cache(maxsize=64)
def _statement(details: frozenset[str] | None, wide: bool) -> str:
    known = {"position": "l.position", "id": "e.id", "uid_text": "e.uid::text", "lane": "l.lane", **COLUMNS}
    columns = ", ".join(
        sql if details is None or name in details or name not in DETAILS else "NULL" for name, sql in known.items()
    )
    return (WIDE_SQL if wide else ORDERED_SQL).format(columns=columns)


def default_per_lane(limit: int) -> int:
    """A lane's share of ``limit``, and half as much again."""
    return max(8, limit * 3 // (2 * LANES))
