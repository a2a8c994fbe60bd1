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


class CustomerActivity(Projection):
    """Sums over all customers; exactly once, since each batch commits with the checkpoint."""

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

    def expected(self, events: Iterable[Event]) -> Rows:
        found: dict[tuple[Any, ...], int] = {}
        for event in events:
            key = (event.created_at.date(), event.type, event.origin)
            found[key] = found.get(key, 0) + 1
        return {"customers_activity": {key: (count,) for key, count in found.items()}}
