"""The order book: every order and where it stands, built from the events of orders alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

import orjson
from django.db import connection

from examples.petstore.services import ORDERS
from outbox.events import Event
from projections.projection import Batch, Projection, Rows, Table

# What a later event does not say stays as it was; an older state never replaces a newer one.
APPLY_SQL: Final = """
INSERT INTO {table} AS o (order_id, customer_id, pet_id, quantity, total, status, ordered_at, confirmed_at,
                          last_sequence)
SELECT order_id, customer_id, pet_id, quantity, total, status, created_at, confirmed_at, last_sequence
  FROM json_to_recordset(%(rows)s::json)
       AS n (order_id text, customer_id text, pet_id text, quantity int, total numeric, status text,
             created_at timestamptz, confirmed_at timestamptz, last_sequence bigint)
ON CONFLICT (order_id) DO UPDATE
   SET status = excluded.status, confirmed_at = COALESCE(excluded.confirmed_at, o.confirmed_at),
       last_sequence = excluded.last_sequence
 WHERE o.last_sequence < excluded.last_sequence
"""
# For batches that begin in the middle of an order.
UPDATE_SQL: Final = """
UPDATE {table} o SET status = n.status, confirmed_at = COALESCE(n.confirmed_at, o.confirmed_at),
       last_sequence = n.last_sequence
  FROM json_to_recordset(%(rows)s::json)
       AS n (order_id text, status text, confirmed_at timestamptz, last_sequence bigint)
 WHERE o.order_id = n.order_id AND o.last_sequence < n.last_sequence
"""


# Orders as they are, each with the number of its last event.
PRESENT_SQL: Final = """
INSERT INTO {table} (order_id, customer_id, pet_id, quantity, total, status, ordered_at, confirmed_at, last_sequence)
SELECT o.id, o.customer_id, o.pet_id, o.quantity, o.total, o.status, o.created_at, o.confirmed_at, a.sequence
  FROM petstore_order o JOIN outbox_aggregate a ON a.aggregate_type = 'order' AND a.aggregate_id = o.id
"""


class OrderBook(Projection):
    """Keyed by order."""

    name = "order_book"
    topics = frozenset({ORDERS})
    tables = (
        Table(
            "petstore_order_book",
            key=("order_id",),
            columns=(
                "customer_id",
                "pet_id",
                "quantity",
                "total",
                "status",
                "ordered_at",
                "confirmed_at",
                "last_sequence",
            ),
        ),
    )
    types: ClassVar[Mapping[str, int] | None] = {"created": 1, "confirmed": 1, "shipped": 1}
    keyed_by = "order"
    reads: ClassVar[frozenset[str] | None] = frozenset()

    def apply(self, batch: Batch) -> None:
        whole: dict[str, dict[str, Any]] = {}
        changes: dict[str, dict[str, Any]] = {}
        for event in batch:
            said = event.payload
            if event.type == "created":
                names = ("order_id", "customer_id", "pet_id", "quantity", "total", "status", "created_at")
                whole[event.aggregate_id] = {name: said[name] for name in names} | {"last_sequence": event.sequence}
            else:
                kept = whole.get(event.aggregate_id) or changes.setdefault(event.aggregate_id, {})
                kept |= {"order_id": said["order_id"], "status": said["status"], "last_sequence": event.sequence}
                if event.type == "confirmed":
                    kept["confirmed_at"] = said["confirmed_at"]
        table = batch.table(self.tables[0])
        with connection.cursor() as cursor:
            for statement, rows in ((APPLY_SQL, whole), (UPDATE_SQL, changes)):
                if rows:
                    cursor.execute(statement.format(table=table), {"rows": orjson.dumps(list(rows.values())).decode()})

    def forget(self, batch: Batch) -> None:
        orders = [event.aggregate_id for event in batch]
        with connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {batch.table(self.tables[0])} WHERE order_id = ANY (%s)",  # noqa: S608
                [orders],
            )

    def bootstrap(self, batch: Batch) -> None:
        with connection.cursor() as cursor:
            cursor.execute(PRESENT_SQL.format(table=batch.table(self.tables[0])))

    def expected(self, events: Iterable[Event]) -> Rows:
        found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for event in events:
            said, key = event.payload, (event.aggregate_id,)
            if event.type == "created":
                ordered_at = datetime.fromisoformat(said["created_at"])
                fixed = (said["customer_id"], said["pet_id"], said["quantity"], Decimal(said["total"]))
                found[key] = (*fixed, said["status"], ordered_at, None, event.sequence)
            elif key in found:
                row = found[key]
                confirmed_at = datetime.fromisoformat(said["confirmed_at"]) if event.type == "confirmed" else row[6]
                found[key] = (*row[:4], said["status"], row[5], confirmed_at, event.sequence)
        return {"petstore_order_book": found}
