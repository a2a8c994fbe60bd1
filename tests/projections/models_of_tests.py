"""Projections for tests: a keyed one with constraints, and one that counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import orjson
from django.db import connection

from outbox.events import Event
from projections.projection import Batch, Projection, Rows, Table
from projections.singly import SingleEventProjection, Statement

SHAPES = """
CREATE TABLE test_totals_shape (
  account text PRIMARY KEY, total bigint NOT NULL, last_sequence bigint NOT NULL,
  CONSTRAINT test_totals_floor CHECK (total >= 0),
  tag text UNIQUE DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE test_days_shape (day date, type text, events bigint NOT NULL, PRIMARY KEY (day, type));
CREATE VIEW test_totals AS SELECT * FROM test_totals_shape;
CREATE VIEW test_days AS SELECT * FROM test_days_shape;
"""
UNSHAPES = """
DROP VIEW test_totals, test_days;
DROP TABLE test_totals_shape, test_days_shape;
"""


class Totals(Projection):
    """What each account holds. Deposits carry an amount; the total may not fall below zero."""

    name = "totals"
    topics = frozenset({"accounts"})
    tables = (Table("test_totals", key=("account",), columns=("total", "last_sequence", "tag")),)
    types: ClassVar[Mapping[str, int] | None] = {"deposited": 1, "renamed": 1}
    keyed_by = "account"
    batch_size: ClassVar[int | None] = 50
    before: ClassVar[Callable[[Batch], None]] = staticmethod(lambda batch: None)
    applied: ClassVar[list[int]] = []

    def apply(self, batch: Batch) -> None:
        type(self).before(batch)
        rows: dict[str, dict[str, Any]] = {}
        for event in batch:
            payload = event.payload
            row = rows.setdefault(event.aggregate_id, {"account": event.aggregate_id, "total": 0, "tag": None})
            row["total"] += payload["amount"]
            row["tag"] = payload.get("tag", row["tag"])
            row["sequence"] = event.sequence
        table = batch.table(self.tables[0])
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} AS t (account, total, last_sequence, tag)"
                " SELECT account, total, sequence, tag FROM json_to_recordset(%s::json)"
                " AS n (account text, total bigint, sequence bigint, tag text)"
                " ON CONFLICT (account) DO UPDATE SET total = t.total + excluded.total,"
                " last_sequence = excluded.last_sequence, tag = COALESCE(excluded.tag, t.tag)"
                " WHERE t.last_sequence < excluded.last_sequence",
                [orjson.dumps(list(rows.values())).decode()],
            )

    def forget(self, batch: Batch) -> None:
        accounts = [event.aggregate_id for event in batch]
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {batch.table(self.tables[0])} WHERE account = ANY (%s)", [accounts])

    def expected(self, events: Iterable[Event]) -> Rows:
        rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for event in events:
            total, _, tag = rows.get((event.aggregate_id,), (0, 0, None))
            payload = event.payload
            tag = payload.get("tag", tag)
            rows[event.aggregate_id,] = (total + payload["amount"], event.sequence, tag)
        return {"test_totals": rows}

    @property
    def compensations(self) -> Mapping[str, Any]:
        return {"credit_one": self._credit_one}

    def _credit_one(self, batch: Batch) -> None:
        (event,) = batch.events
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {batch.table(self.tables[0])} AS t VALUES (%s, 1, %s)"
                " ON CONFLICT (account) DO UPDATE SET total = t.total + 1, last_sequence = excluded.last_sequence",
                [event.aggregate_id, event.sequence],
            )


class Days(Projection):
    """How many events of each type there were on a day."""

    name = "days"
    topics = frozenset({"accounts"})
    tables = (Table("test_days", key=("day", "type"), columns=("events",)),)

    def apply(self, batch: Batch) -> None:
        counts = Counter((event.created_text[:10], event.type) for event in batch)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {batch.table(self.tables[0])} AS t"
                " SELECT * FROM unnest(%s::date[], %s::text[], %s::bigint[])"
                " ON CONFLICT (day, type) DO UPDATE SET events = t.events + excluded.events",
                [[key[0] for key in counts], [key[1] for key in counts], list(counts.values())],
            )

    def expected(self, events: Iterable[Event]) -> Rows:
        counts: dict[tuple[Any, ...], int] = {}
        for event in events:
            key = (event.created_at.date(), event.type)
            counts[key] = counts.get(key, 0) + 1
        return {"test_days": {key: (count,) for key, count in counts.items()}}


class TotalsAgain(Totals):
    """The same with another version."""

    version = 2


class TotalsSingly(SingleEventProjection):
    """The same totals event by event, each with two statements that take turns."""

    name = "totals"
    topics = frozenset({"accounts"})
    tables = Totals.tables
    reads: ClassVar[frozenset[str] | None] = frozenset()
    expected = Totals.expected

    def handle(self, event: Event, batch: Batch) -> Iterable[Statement]:
        table = batch.table(self.tables[0])
        yield f"INSERT INTO {table} VALUES (%s, 0, 0) ON CONFLICT (account) DO NOTHING", [event.aggregate_id]
        add = (
            f"UPDATE {table} SET total = total + %(amount)s, last_sequence = %(sequence)s, tag = COALESCE(%(tag)s, tag)"
            " WHERE account = %(account)s AND last_sequence < %(sequence)s"
        )
        yield add, {"tag": None, **event.payload, "sequence": event.sequence, "account": event.aggregate_id}
