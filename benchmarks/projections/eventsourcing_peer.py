"""The same read model with eventsourcing and its PostgreSQL recorder: by its runner as it ships, and by a batched loop.

A script of its own, run by the Python of the peers' environment (see ``benchmarks.projections.peer``): it knows nothing
of this project.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from processors import processor_seconds

TABLE = "CREATE TABLE bench_peer (id text PRIMARY KEY, name text, total bigint NOT NULL, last_sequence bigint NOT NULL)"
UPSERT_ONE = """
INSERT INTO bench_peer AS t (id, name, total, last_sequence) VALUES (%s, %s, 1, %s)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, total = t.total + 1, last_sequence = excluded.last_sequence
"""
UPSERT = """
INSERT INTO bench_peer AS t (id, name, total, last_sequence)
SELECT id, name, total, last_sequence
  FROM json_to_recordset(%s::json) AS n (id text, name text, total bigint, last_sequence bigint)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, total = t.total + excluded.total,
       last_sequence = excluded.last_sequence
"""
CHECKSUM = (
    "SELECT count(*), sum(total), md5(string_agg(name || total || last_sequence, ',' ORDER BY name)) FROM bench_peer"
)
BATCH = 5_000
PER_AGGREGATE = 20
DATA = os.environ["PEER_PAYLOAD"]
POSTMASTER = int(os.environ["PEER_POSTMASTER"])


class Customer(Aggregate):
    """What events are about."""

    def __init__(self, name: str, data: str) -> None:
        self.name = name

    @event("Renamed")
    def rename(self, name: str, data: str) -> None:
        self.name = name


class Customers(Application[UUID]):
    """The event store."""


class View(PostgresTrackingRecorder):
    """The read model, which is written together with its tracking record."""

    def count(self, key: str, name: str, version: int, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(UPSERT_ONE, (key, name, version))

    def count_many(self, rows: str, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(UPSERT, (rows,))


class Counting(Projection[View]):
    """As its documentation shows: one event, one transaction."""

    name = "counting"

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        key, version = str(domain_event.originator_id), domain_event.originator_version
        self.view.count(key, domain_event.name, version, tracking)


def fill(app: Customers, events: int) -> None:
    for number in range(events // PER_AGGREGATE):
        customer = Customer(f"n{number}-0", DATA)
        for nth in range(1, PER_AGGREGATE):
            customer.rename(f"n{number}-{nth}", DATA)
        app.save(customer)


def by_runner(environment: dict[str, str], events: int) -> float:
    began = time.perf_counter()
    with ProjectionRunner(
        application_class=Customers, projection_class=Counting, view_class=View, env=environment
    ) as runner:
        runner.wait(events, timeout=600)
        return time.perf_counter() - began


def by_batch(app: Customers, view: View, events: int) -> float:
    began, after = time.perf_counter(), 0
    while after < events:
        notifications = app.recorder.select_notifications(after + 1, BATCH)
        found: dict[str, list[Any]] = {}
        for notification in notifications:
            said: Any = app.mapper.to_domain_event(notification)
            row = found.setdefault(str(said.originator_id), ["", 0, 0])
            row[0], row[1], row[2] = said.name, row[1] + 1, said.originator_version
        rows = [{"id": key, "name": row[0], "total": row[1], "last_sequence": row[2]} for key, row in found.items()]
        after = notifications[-1].id
        view.count_many(json.dumps(sorted(rows, key=lambda row: row["id"])), Tracking("batched", after))
    return time.perf_counter() - began


def main() -> int:
    way, count = sys.argv[1], int(sys.argv[2])
    url = urlsplit(os.environ["PEER_DATABASE_URL"])
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": url.path.removeprefix("/"),
        "POSTGRES_HOST": str(url.hostname),
        "POSTGRES_PORT": str(url.port),
        "POSTGRES_USER": str(url.username),
        "POSTGRES_PASSWORD": url.password or "-",
    }
    app = Customers(env=environment)
    fill(app, count)
    view = app.factory.tracking_recorder(View)
    with view.datastore.transaction(commit=True) as cursor:
        cursor.execute(TABLE)
    before = processor_seconds(POSTMASTER)
    seconds = by_runner(environment, count) if way == "runner" else by_batch(app, view, count)
    after = processor_seconds(POSTMASTER)
    with view.datastore.transaction(commit=False) as cursor:
        cursor.execute(CHECKSUM)
        rows = [str(value) for value in cursor.fetchone().values()]
    computed = None if before is None or after is None else after - before
    print(json.dumps({"seconds": seconds, "computed": computed, "events": count, "checksum": rows}))
    app.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
