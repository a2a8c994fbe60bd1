"""The activity: how many customers were created, changed and deleted on each day, and from where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from django.db import connection

from customers.events import CREATED, DELETED, ERASED, TOPIC, UPDATED
from outbox.events import Event
from projections.projection import Batch, Projection, Rows, Table

APPLY_SQL: Final = """
INSERT INTO {table} AS a (day, type, origin, events)
SELECT * FROM unnest(%(days)s::date[], %(types)s::text[], %(origins)s::text[], %(counts)s::bigint[])
ON CONFLICT (day, type, origin) DO UPDATE SET events = a.events + excluded.events
"""

# What a build that begins at the present state has counted by then. Days that the log still has as a whole are counted
# anew; of earlier ones, the rows that readers see, and what their build has not applied yet. The events in the snapshot
# are those up to the new build's checkpoint, and those that another build was not done with are all still there.
PRESENT_SQL: Final = """
WITH seen AS (
  SELECT cursor FROM projections_build WHERE projection = %(projection)s AND state = 'live' AND id <> %(build)s
), whole AS (
  SELECT CASE WHEN EXISTS (SELECT FROM seen)
              -- Moments of events do not follow their ids to the second.
              THEN ((SELECT created_at FROM outbox_event ORDER BY id LIMIT 1) AT TIME ZONE 'UTC'
                    + interval '1 hour')::date + 1
              ELSE '-infinity' END AS since
)
INSERT INTO {table} (day, type, origin, events)
SELECT day, type, origin, sum(events)
  FROM (SELECT day, type, origin, events FROM customers_activity
         WHERE EXISTS (SELECT FROM seen) AND day < COALESCE((SELECT since FROM whole), 'infinity')
         UNION ALL
        SELECT e.day, type, origin, 1
          FROM (SELECT *, (created_at AT TIME ZONE 'UTC')::date AS day FROM outbox_event) AS e
         WHERE topic = %(topic)s AND type = ANY (%(types)s)
           AND (e.day >= (SELECT since FROM whole)
                OR NOT EXISTS (SELECT FROM outbox_log l
                                WHERE l.event_id = e.id AND l.position <= (SELECT cursor FROM seen)))) AS counted
 GROUP BY day, type, origin
"""


class CustomerActivity(Projection):
    """Sums over all customers; exactly once, since each batch commits with the checkpoint.

    Events of an erased customer are counted as all others: they say nothing of anybody.
    """

    name = "customer_activity"
    topics = frozenset({TOPIC})
    tables = (Table("customers_activity", key=("day", "type", "origin"), columns=("events",)),)
    types: ClassVar[Mapping[str, int] | None] = {CREATED: 1, UPDATED: 1, DELETED: 1, ERASED: 1}
    reads: ClassVar[frozenset[str] | None] = frozenset({"origin", "created_text"})

    def apply(self, batch: Batch) -> None:
        counts = Counter((event.created_text[:10], event.type, event.origin) for event in batch)
        # In one order, so that two builds' statements touch rows alike.
        keys = sorted(counts)
        with connection.cursor() as cursor:
            cursor.execute(
                APPLY_SQL.format(table=batch.table(self.tables[0])),
                {
                    "days": [key[0] for key in keys],
                    "types": [key[1] for key in keys],
                    "origins": [key[2] for key in keys],
                    "counts": [counts[key] for key in keys],
                },
            )

    def bootstrap(self, batch: Batch) -> None:
        values: dict[str, Any] = {
            "projection": self.name,
            "build": batch.build_id,
            "topic": TOPIC,
            "types": list(self.types or ()),
        }
        with connection.cursor() as cursor:
            cursor.execute(PRESENT_SQL.format(table=batch.table(self.tables[0])), values)

    def expected(self, events: Iterable[Event]) -> Rows:
        found: dict[tuple[Any, ...], int] = {}
        for event in events:
            key = (event.created_at.date(), event.type, event.origin)
            found[key] = found.get(key, 0) + 1
        return {"customers_activity": {key: (count,) for key, count in found.items()}}
