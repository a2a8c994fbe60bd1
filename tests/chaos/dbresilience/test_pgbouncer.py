"""The backend behind a real PgBouncer in transaction mode, which gives each transaction another session."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import connection, connections

from dbresilience.transactions import run_in_transaction
from tests.dbresilience.backends import in_threads, one, other_session, pooled_alias
from tests.dbresilience.loads import Requests
from tests.dbresilience.pgbouncer import PgBouncer

pytestmark = [pytest.mark.chaos, pytest.mark.feature("A15", "B1", "B2"), pytest.mark.usefixtures("transactional_db")]

SESSIONS = 5
SEED = 20251


@pytest.fixture
def bouncer(transactional_db: None, settings: LazySettings) -> Iterator[PgBouncer]:
    """The default alias behind PgBouncer, with an account of ten rows."""
    settings.DB_PGBOUNCER = True
    with other_session() as session:
        session.execute("CREATE TABLE purse (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0))")
        session.execute("INSERT INTO purse SELECT n, 1000 FROM generate_series(1, 10) n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        made = PgBouncer(folder, connection.settings_dict, size=SESSIONS)
        made.start()
        changes = {"HOST": "127.0.0.1", "PORT": str(made.port), "DISABLE_SERVER_SIDE_CURSORS": True}
        try:
            with pooled_alias(**changes):
                yield made
        finally:
            made.stop()
            with other_session() as session:
                session.execute("DROP TABLE purse")


def transfer(chance: random.Random, backends: set[int]) -> None:
    first, second = chance.sample(range(1, 11), 2)

    def work() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid(), balance FROM purse WHERE id = %s FOR UPDATE", [first])
            backend, balance = cursor.fetchone()
            amount = min(balance, chance.randint(1, 50))
            cursor.execute("UPDATE purse SET balance = balance - %s WHERE id = %s", [amount, first])
            cursor.execute("UPDATE purse SET balance = balance + %s WHERE id = %s", [amount, second])
            backends.add(backend)

    run_in_transaction(work, max_retries=20, isolation=chance.choice([None, "serializable"]))


def total(bouncer: PgBouncer) -> int:
    with other_session(bouncer.settings) as session:
        row = session.execute("SELECT sum(balance) FROM purse").fetchone()
    assert row is not None
    return int(row[0])


def test_twenty_threads_share_five_sessions_and_lose_nothing(bouncer: PgBouncer) -> None:
    backends: set[int] = set()

    def work(number: int) -> None:
        chance = random.Random(SEED + number)
        for _ in range(30):
            transfer(chance, backends)
            connections["default"].close()

    errors = in_threads(20, work)

    print(f"20 threads, 600 transfers over {len(backends)} sessions, {len(errors)} failed, sum {total(bouncer)}")
    assert errors == []
    assert len(backends) <= SESSIONS
    assert total(bouncer) == 10_000


def test_nothing_set_for_a_transaction_reaches_the_next(bouncer: PgBouncer) -> None:
    def limited() -> None:
        assert one("SHOW statement_timeout") != "0"

    run_in_transaction(limited, deadline=5)

    def limits(_: int) -> None:
        assert one("SHOW statement_timeout") == "0"
        assert one("SHOW lock_timeout") == "0"

    assert in_threads(20, limits) == []


def test_only_what_was_in_flight_fails_when_sessions_are_terminated_and_it_dies_itself(bouncer: PgBouncer) -> None:
    requests = Requests()
    stop = threading.Event()
    backends: set[int] = set()

    def work(number: int) -> None:
        chance = random.Random(SEED + number)
        while not stop.is_set():
            requests.run(lambda: transfer(chance, backends))

    loaders = threading.Thread(target=lambda: in_threads(8, work))
    loaders.start()
    time.sleep(1)
    with other_session(bouncer.settings) as session:
        for _ in range(10):
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() LIMIT 3"
            )
            time.sleep(0.2)
    bouncer.stop()
    time.sleep(0.5)
    bouncer.start()
    back = time.monotonic()
    served = requests.served
    while requests.served == served:
        assert time.monotonic() - back < 60
        time.sleep(0.01)
    first = time.monotonic() - back
    stop.set()
    loaders.join()
    before = len(requests.failures)
    for _ in range(60):
        requests.run(lambda: one("SELECT 1"))

    print(
        f"{requests.served} served, {before} failed, first success {first * 1000:.0f} ms after its return, "
        f"{len(requests.failures) - before} of 60 failed afterwards, sum {total(bouncer)}"
    )
    # How soon depends on where the threads' retries stand in their patience, a second and more.
    assert len(requests.failures) == before
    assert total(bouncer) == 10_000
