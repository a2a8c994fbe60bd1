"""The directory: every customer that is not deleted, found by words of its name, e-mail and phone number."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

import orjson
from django.db import connection

from customers.events import AGGREGATE, CREATED, DELETED, ERASED, TOPIC, UPDATED
from outbox.events import Event
from projections.projection import Batch, Projection, Rows, Table

_GONE: Final = (DELETED, ERASED)
_WORD: Final = re.compile(r"[^\W_]+")

# One statement for a batch: the last event of each customer holds all of it. A row is never replaced by an older state,
# and a customer whose last event is its deletion leaves. Deletion and erasure are for ever: what comes after one brings
# nothing back. Only where the row is not there and the batch does not have the customer's first event, so hardly ever,
# the log is asked for one, by the index of its aggregates.
APPLY_SQL: Final = """
WITH new AS MATERIALIZED (
  SELECT * FROM json_to_recordset(%(rows)s::json)
       AS n (customer_id uuid, name text, email text, phone text, version int, deleted boolean, origin text,
             updated_at timestamptz, first_sequence bigint, last_sequence bigint, words text[])
), gone AS (
  DELETE FROM {table} d USING new n
   WHERE n.deleted AND d.customer_id = n.customer_id AND d.last_sequence < n.last_sequence
)
INSERT INTO {table} AS d (customer_id, name, email, phone, version, origin, updated_at, last_sequence, document)
SELECT customer_id, name, email, phone, version, origin, updated_at, last_sequence,
       array_to_tsvector(words)
  FROM new n
 WHERE NOT deleted
   AND (first_sequence = 1 OR EXISTS (SELECT FROM {table} t WHERE t.customer_id = n.customer_id)
        OR NOT EXISTS (SELECT FROM outbox_event e
                        WHERE e.aggregate_type = %(kind)s AND e.aggregate_id = n.customer_id::text
                          AND e.sequence < n.last_sequence AND e.type = ANY (%(gone)s)))
ON CONFLICT (customer_id) DO UPDATE
   SET name = excluded.name, email = excluded.email, phone = excluded.phone, version = excluded.version,
       origin = excluded.origin, updated_at = excluded.updated_at, last_sequence = excluded.last_sequence,
       document = excluded.document
 WHERE d.last_sequence < excluded.last_sequence
"""


# Customers as they are, by primary key, each with the number of its last event and, while that is kept, its origin.
PRESENT_SQL: Final = """
SELECT c.id::text, c.name, c.email, c.phone, c.version, c.updated_at, a.sequence, COALESCE(e.origin, '')
  FROM customers_customer c
  JOIN outbox_aggregate a ON a.aggregate_type = %(kind)s AND a.aggregate_id = c.id::text
  LEFT JOIN outbox_event e ON e.aggregate_type = a.aggregate_type AND e.aggregate_id = a.aggregate_id
       AND e.sequence = a.sequence
 WHERE c.deleted_at IS NULL AND c.id > %(after)s::uuid
 ORDER BY c.id LIMIT %(most)s
"""
_FIRST: Final = str(UUID(int=0))
_AT_ONCE: Final = 2_000
_PRESENT: Final = ("customer_id", "name", "email", "phone", "version", "updated_at", "last_sequence", "origin")


class CustomerDirectory(Projection):
    """Keyed by customer: any row follows from the events of its customer alone."""

    name = "customer_directory"
    topics = frozenset({TOPIC})
    tables = (
        Table(
            "customers_directory",
            key=("customer_id",),
            columns=("name", "email", "phone", "version", "origin", "updated_at", "last_sequence"),
        ),
    )
    types: ClassVar[Mapping[str, int] | None] = {CREATED: 1, UPDATED: 1, DELETED: 1, ERASED: 1}
    keyed_by = AGGREGATE
    reads: ClassVar[frozenset[str] | None] = frozenset({"origin"})

    def apply(self, batch: Batch) -> None:
        firsts: dict[str, int] = {}
        latest: dict[str, Event] = {}
        for event in batch:
            firsts.setdefault(event.aggregate_id, event.sequence)
            before = latest.get(event.aggregate_id)
            if before is None or before.type not in _GONE or event.type in _GONE:
                latest[event.aggregate_id] = event
        rows = [{**_row(event), "first_sequence": firsts[key]} for key, event in latest.items()]
        with connection.cursor() as cursor:
            cursor.execute(APPLY_SQL.format(table=batch.table(self.tables[0])), _values(rows))

    def forget(self, batch: Batch) -> None:
        customers = [event.aggregate_id for event in batch]
        with connection.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {batch.table(self.tables[0])} WHERE customer_id = ANY (%s::uuid[])",  # noqa: S608
                [customers],
            )

    def bootstrap(self, batch: Batch) -> None:
        statement, after = APPLY_SQL.format(table=batch.table(self.tables[0])), _FIRST
        with connection.cursor() as cursor:
            while True:
                cursor.execute(PRESENT_SQL, {"kind": AGGREGATE, "after": after, "most": _AT_ONCE})
                found = [dict(zip(_PRESENT, row, strict=True)) for row in cursor.fetchall()]
                if not found:
                    return
                rows = [{**row, "deleted": False, "first_sequence": 1, "words": _words(row)} for row in found]
                cursor.execute(statement, _values(rows))
                after = found[-1]["customer_id"]

    def expected(self, events: Iterable[Event]) -> Rows:
        found: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        over = set()
        for event in events:
            said = event.payload
            key = (UUID(said["customer_id"]),)
            if event.type in (DELETED, ERASED):
                over.add(key)
                found.pop(key, None)
            if key in over:
                continue
            moment = datetime.fromisoformat(said["updated_at"])
            contact = said["name"], said["email"], said["phone"]
            found[key] = (*contact, said["version"], event.origin, moment, event.sequence)
        return {"customers_directory": found}


def _values(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": orjson.dumps(rows).decode(), "kind": AGGREGATE, "gone": list(_GONE)}


def _row(event: Event) -> dict[str, Any]:
    payload = event.payload
    # A field that is missing is an error, not an empty value.
    row = {name: payload[name] for name in ("customer_id", "name", "email", "phone", "version", "updated_at")}
    deleted = event.type in _GONE
    return row | {
        "deleted": deleted,
        "origin": event.origin,
        "last_sequence": event.sequence,
        "words": _words(row),
    }


def _words(row: Mapping[str, Any]) -> list[str]:
    return sorted({word for text in (row["name"], row["email"], row["phone"]) for word in words_of(text or "")})


def words_of(text: str) -> list[str]:
    """The words of a text as they are kept and searched: letters and digits, in small letters.

    Split here and not by PostgreSQL, whose idea of letters and capitals depends on the locale of the database.
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())
