"""The read model that is measured, written in three ways: by batch, event by event, and by hand without the engine."""

from __future__ import annotations

import os
from collections.abc import Iterable
from operator import attrgetter
from typing import ClassVar

import orjson
import psycopg
from django.db import connection

from outbox.events import Event
from projections.projection import Batch, Projection, Table
from projections.singly import SingleEventProjection, Statement

SHAPES = """
CREATE TABLE bench_batch_shape (
  id text PRIMARY KEY, name text, total bigint NOT NULL, last_sequence bigint NOT NULL
);
CREATE TABLE bench_single_shape (LIKE bench_batch_shape INCLUDING ALL);
CREATE TABLE bench_second_shape (LIKE bench_batch_shape INCLUDING ALL);
CREATE TABLE bench_third_shape (LIKE bench_batch_shape INCLUDING ALL);
CREATE TABLE bench_fourth_shape (LIKE bench_batch_shape INCLUDING ALL);
CREATE TABLE bench_hand (LIKE bench_batch_shape INCLUDING ALL);
CREATE TABLE bench_hand_checkpoint (id bigint NOT NULL, events bigint NOT NULL);
CREATE VIEW bench_batch AS SELECT * FROM bench_batch_shape;
CREATE VIEW bench_single AS SELECT * FROM bench_single_shape;
CREATE VIEW bench_second AS SELECT * FROM bench_second_shape;
CREATE VIEW bench_third AS SELECT * FROM bench_third_shape;
CREATE VIEW bench_fourth AS SELECT * FROM bench_fourth_shape;
"""
UPSERT = """
INSERT INTO {table} AS t (id, name, total, last_sequence)
SELECT id, name, total, last_sequence
  FROM json_to_recordset(%s::json) AS n (id text, name text, total bigint, last_sequence bigint)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, total = t.total + excluded.total,
       last_sequence = excluded.last_sequence
 WHERE t.last_sequence < excluded.last_sequence
"""
UPSERT_ONE = """
INSERT INTO {table} AS t (id, name, total, last_sequence) VALUES (%s, %s, 1, %s)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, total = t.total + 1, last_sequence = excluded.last_sequence
 WHERE t.last_sequence < excluded.last_sequence
"""
CHECKSUM = "SELECT count(*), sum(total), md5(string_agg(id || name || total || last_sequence, ',' ORDER BY id)) FROM {}"

CHECKSUM_WITHOUT_KEYS = (
    "SELECT count(*), sum(total), md5(string_agg(name || total || last_sequence, ',' ORDER BY name)) FROM bench_batch"
)

Fold = dict[str, list[object]]


def fold(rows: Iterable[tuple[str, int, str]]) -> str:
    """The rows of a batch as JSON: the last name, and how many events there were."""
    found: Fold = {}
    for key, sequence, payload in rows:
        row = found.get(key)
        name = orjson.loads(payload)["name"]
        if row is None:
            found[key] = [name, 1, sequence]
        else:
            row[0], row[1], row[2] = name, row[1] + 1, sequence  # type: ignore[operator]
    documents = [
        {"id": key, "name": row[0], "total": row[1], "last_sequence": row[2]} for key, row in sorted(found.items())
    ]
    return orjson.dumps(documents).decode()


WANTED = attrgetter("aggregate_id", "sequence", "payload_text")


class ByBatch(Projection):
    name = "by_batch"
    reads: ClassVar[frozenset[str] | None] = frozenset()
    topics = frozenset({"customers"})
    tables = (Table("bench_batch", key=("id",), columns=("name", "total", "last_sequence")),)
    types = {"customer.updated": 1}

    def apply(self, batch: Batch) -> None:
        text = fold(map(WANTED, batch))
        with connection.cursor() as cursor:
            cursor.execute(UPSERT.format(table=batch.table(self.tables[0])), [text])


class Second(ByBatch):
    name = "second"
    tables = (Table("bench_second", key=("id",), columns=("name", "total", "last_sequence")),)


class Third(ByBatch):
    name = "third"
    tables = (Table("bench_third", key=("id",), columns=("name", "total", "last_sequence")),)


class Fourth(ByBatch):
    name = "fourth"
    tables = (Table("bench_fourth", key=("id",), columns=("name", "total", "last_sequence")),)


class Single(SingleEventProjection):
    name = "single"
    reads: ClassVar[frozenset[str] | None] = frozenset()
    topics = frozenset({"customers"})
    tables = (Table("bench_single", key=("id",), columns=("name", "total", "last_sequence")),)
    types = {"customer.updated": 1}

    def handle(self, event: Event, batch: Batch) -> Iterable[Statement]:
        name = event.payload["name"]
        yield UPSERT_ONE.format(table=batch.table(self.tables[0])), (event.aggregate_id, name, event.sequence)


# LIMIT 1 keeps the planner from reading the events from the first one on, which made the loop three times as slow.
READ = """
SELECT l.position, e.aggregate_id, e.sequence, e.payload::text
  FROM (SELECT position, event_id FROM outbox_log WHERE position > %s AND position <= %s) AS l
 CROSS JOIN LATERAL (SELECT * FROM outbox_event WHERE id = l.event_id LIMIT 1) AS e ORDER BY l.position
"""


def by_hand(after: int, batch: int) -> int:
    """The limit: psycopg on the same log, one fold, one upsert and one checkpoint a batch; nothing of the engine.

    It reads by ranges of positions, which only somebody who knows that nobody writes meanwhile may do.
    """
    done = 0
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        session.execute("SET jit = off")
        (head,) = session.execute("SELECT last_value FROM outbox_log_position_seq").fetchone()  # type: ignore[misc]
        session.execute("INSERT INTO bench_hand_checkpoint VALUES (%s, 0)", [after])
        statement = UPSERT.format(table="bench_hand")
        while after < head:
            with session.transaction():
                rows = session.execute(READ, [after, after + batch]).fetchall()
                session.execute(statement, [fold(row[1:] for row in rows)])
                session.execute("UPDATE bench_hand_checkpoint SET id = %s, events = events + %s", [after, len(rows)])
            after += batch
            done += len(rows)
    return done
