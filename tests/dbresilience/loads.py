"""Loads that the proofs put on the pool: each takes its size, prints what it saw, and returns it."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from django.db import Error, OperationalError, connection, connections
from psycopg_pool import PoolTimeout, TooManyRequests

from dbresilience.postgresql.base import DatabaseWrapper
from dbresilience.transactions import run_in_transaction
from tests.dbresilience.backends import fill, in_threads, one, other_session, pool_of, pooled_alias, terminate
from tests.dbresilience.proxy import Proxy
from zenskar.sandbox.postgres import Postgres
from zenskar.sandbox.processes import free_port


@dataclass
class Requests:
    """What became of requests under load."""

    served: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, request: Callable[[], object]) -> None:
        """One request: it gives its connection back, whatever happens."""
        started = time.monotonic()
        failure = ""
        try:
            request()
        except Error as exc:
            failure = type(exc.__cause__ or exc).__name__
        finally:
            connections.close_all()
        took = time.monotonic() - started
        with self.lock:
            self.slowest = max(self.slowest, took)
            if failure:
                self.failures.append((time.monotonic(), failure))
            else:
                self.served += 1


def all_terminated(wrapper: DatabaseWrapper, *, idle: int = 40, asked: int = 60) -> float:
    """Requests one after another, when every idle connection was terminated; returns the slowest, seconds."""
    backends = fill(wrapper, idle)
    before = pool_of(wrapper).stats()
    terminate(backends)
    requests = Requests()
    for _ in range(asked):
        requests.run(lambda: one("SELECT 1"))
    stats = pool_of(wrapper).stats()
    dead, sweeps = stats.dead_found - before.dead_found, stats.sweeps - before.sweeps
    print(
        f"{idle} of {idle} terminated: {asked} requests, {len(requests.failures)} errors, "
        f"slowest {requests.slowest * 1000:.1f} ms, dead found {dead}"
    )
    assert requests.failures == []
    assert (dead, sweeps) == (idle, 1)
    return requests.slowest


def silent_peer(proxy: Proxy, wrapper: DatabaseWrapper, *, threads: int, deadline: float) -> float:
    """Transactions with a deadline, of many threads, while nothing comes back from the server; returns the slowest."""
    fill(wrapper, threads)
    lasted: list[float] = []
    silenced = threading.Barrier(threads, action=lambda: setattr(proxy, "silent", True))

    def work(number: int) -> None:
        # Some are in the middle of their work, the others have not begun.
        def ask() -> None:
            if number % 2:
                one("SELECT 1")
                silenced.wait(timeout=60)
            one("SELECT 1")

        if not number % 2:
            silenced.wait(timeout=60)
        started = time.monotonic()
        try:
            run_in_transaction(ask, deadline=deadline, max_retries=0)
        except Error:
            lasted.append(time.monotonic() - started)

    errors = in_threads(threads, work, seconds=120)
    proxy.silent = False
    proxy.cut()
    until = time.monotonic() + 60
    while True:
        try:
            one("SELECT 1")
            break
        except OperationalError:
            wrapper.close()
            assert time.monotonic() < until, "nobody is served after the silence"
    print(
        f"silent peer: {threads} transactions with a deadline of {deadline:g} s, {len(lasted)} ended with an error, "
        f"the last after {max(lasted):.2f} s, {len(errors)} hung"
    )
    assert errors == []
    assert len(lasted) == threads
    return max(lasted)


def under_terminations(seed: int, *, seconds: float, a_second: float, threads: int) -> tuple[Requests, int]:
    """Requests of many threads while random sessions of the pool are terminated; then 60 without."""
    chance = random.Random(seed)
    requests, over = Requests(), threading.Event()
    terminated = 0

    def work(_: int) -> None:
        while not over.is_set():
            requests.run(lambda: one("SELECT pg_sleep(0.002)"))

    def terminate_some() -> int:
        count = 0
        until = time.monotonic() + seconds
        with other_session() as session:
            while time.monotonic() < until:
                rows = session.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                    "AND backend_type = 'client backend' AND application_name NOT LIKE '%monitor'"
                ).fetchall()
                if rows:
                    session.execute("SELECT pg_terminate_backend(%s)", [chance.choice(rows)[0]])
                    count += 1
                over.wait(1 / a_second)
        return count

    workers = threading.Thread(target=lambda: in_threads(threads, work, seconds=seconds + 60))
    workers.start()
    try:
        terminated = terminate_some()
    finally:
        over.set()
        workers.join()
    during = len(requests.failures)
    after = Requests()
    for _ in range(60):
        after.run(lambda: one("SELECT 1"))
    print(
        f"seed {seed}: {terminated} terminations in {seconds:g} s, {requests.served} requests served, {during} failed, "
        f"{len(after.failures)} of 60 failed afterwards"
    )
    assert after.failures == []
    return requests, terminated


def under_restarts(folder: Path, *, restarts: int, threads: int, down: float) -> float:
    """Requests of many threads on a server that is killed and started again; returns the slowest way back, seconds."""
    postgres = Postgres(data=folder / "postgres", port=free_port(), durable=True)
    postgres.start()
    known = {"HOST": "127.0.0.1", "PORT": str(postgres.port), "NAME": "zenskar", "USER": "zenskar", "PASSWORD": ""}
    requests, over = Requests(), threading.Event()
    served_at: list[float] = []
    ways_back: list[float] = []

    def ask() -> None:
        one("SELECT 1")
        served_at.append(time.monotonic())

    def work(_: int) -> None:
        while not over.is_set():
            requests.run(ask)
            over.wait(0.005)

    try:
        with pooled_alias(**known) as wrapper:
            fill(wrapper, threads)
            workers = threading.Thread(target=lambda: in_threads(threads, work, seconds=120))
            workers.start()
            try:
                for _ in range(restarts):
                    over.wait(0.3)
                    postgres.stop(mode="immediate")
                    over.wait(down)
                    postgres.start()
                    back = time.monotonic()
                    while not (served_at and served_at[-1] > back):
                        assert time.monotonic() < back + 60, "nobody is served after the server's return"
                        over.wait(0.005)
                    ways_back.append(max(0.0, served_at[-1] - back))
            finally:
                over.set()
                workers.join()
            after = Requests()
            for _ in range(60):
                after.run(lambda: one("SELECT 1"))
    finally:
        postgres.stop(mode="immediate")
    print(
        f"{restarts} restarts under {threads} threads: {requests.served} served, {len(requests.failures)} failed, "
        f"first success at most {max(ways_back) * 1000:.0f} ms after the return, {len(after.failures)} of 60 failed "
        "afterwards"
    )
    assert after.failures == []
    return max(ways_back)


def exhausted(wrapper: DatabaseWrapper, *, threads: int, hold: float) -> Counter[str]:
    """More threads than connections, all at once; returns how each ended."""
    ends: Counter[str] = Counter()
    peak = 0.0
    # Connecting is not what this is about.
    fill(wrapper, pool_of(wrapper).max_size)
    together = threading.Barrier(threads)

    def work(_: int) -> None:
        nonlocal peak
        together.wait(timeout=60)
        try:
            connection.ensure_connection()
            peak = max(peak, pool_of(wrapper).stats().utilisation)
            one(f"SELECT 1 FROM pg_sleep({hold})")
            ends["served"] += 1
        except OperationalError as exc:
            assert isinstance(exc.__cause__, PoolTimeout | TooManyRequests), repr(exc.__cause__)
            ends["refused"] += 1

    started = time.monotonic()
    errors = in_threads(threads, work, seconds=120)
    took = time.monotonic() - started
    stats = pool_of(wrapper).stats()
    print(
        f"{threads} threads on {stats.size + stats.max_overflow} connections: {dict(ends)}, {len(errors)} lost, "
        f"peak utilisation {peak:.0%}, {took:.2f} s, wait p99 {stats.wait.p99} ms"
    )
    assert errors == []
    assert ends["served"] + ends["refused"] == threads
    assert (stats.borrowed, stats.waiting) == (0, 0)
    assert ends["refused"] == stats.timeouts
    assert peak >= 0.9
    return ends


def reversed_locks(seed: int, *, threads: int, rounds: int, purses: int, hold: float) -> int:
    """Transfers among purses that lock in random order, so that they deadlock; returns the most retries of one."""
    runs: Counter[tuple[int, int]] = Counter()

    def work(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        for turn in range(rounds):
            first, second = chance.sample(range(1, purses + 1), 2)

            def transfer(turn: int = turn, first: int = first, second: int = second) -> None:
                runs[number, turn] += 1
                with connection.cursor() as cursor:
                    cursor.execute("UPDATE purse SET coins = coins - 1 WHERE id = %s", [first])
                    cursor.execute("SELECT pg_sleep(%s)", [hold])
                    cursor.execute("UPDATE purse SET coins = coins + 1 WHERE id = %s", [second])

            run_in_transaction(transfer)

    with other_session() as session:
        session.execute("CREATE TABLE purse (id int PRIMARY KEY, coins int)")
        session.execute("INSERT INTO purse SELECT n, 1000 FROM generate_series(1, %s) AS n", [purses])
    try:
        errors = in_threads(threads, work, seconds=240)
        with other_session() as session:
            row = session.execute("SELECT sum(coins) FROM purse").fetchone()
    finally:
        with other_session() as session:
            session.execute("DROP TABLE purse")
    most = max(runs.values())
    repeated = sum(runs.values()) - threads * rounds
    print(
        f"seed {seed}: {threads} threads in reversed order, {threads * rounds} transfers, {repeated} repeated, "
        f"{most - 1} retries at most, {len(errors)} failed, sum {row[0] if row else None}"
    )
    assert errors == []
    assert row == (purses * 1000,)
    assert repeated > 0
    return most - 1


def write_skew(seed: int, *, rounds: int) -> int:
    """Two doctors who each go off call when the other is on; returns how often both went."""
    chance = random.Random(seed)
    broken = 0
    with other_session() as session:
        session.execute("CREATE TABLE doctor (id int PRIMARY KEY, on_call boolean)")
    try:
        for _ in range(rounds):
            with other_session() as session:
                session.execute("TRUNCATE doctor; INSERT INTO doctor VALUES (1, true), (2, true)")
            both_have_read = threading.Barrier(2)
            pause = chance.uniform(0, 0.002)

            def work(number: int, barrier: threading.Barrier = both_have_read, pause: float = pause) -> None:
                first_run = [True]

                def go_off_call() -> None:
                    with connection.cursor() as cursor:
                        cursor.execute("SELECT count(*) FROM doctor WHERE on_call")
                        (count,) = cursor.fetchone()
                        if first_run.pop() if first_run else False:
                            barrier.wait(timeout=60)
                            time.sleep(pause * number)
                        if count == 2:
                            cursor.execute("UPDATE doctor SET on_call = false WHERE id = %s", [number + 1])

                run_in_transaction(go_off_call, isolation="serializable")

            assert in_threads(2, work) == []
            with other_session() as session:
                row = session.execute("SELECT count(*) FROM doctor WHERE on_call").fetchone()
            broken += row == (0,)
    finally:
        with other_session() as session:
            session.execute("DROP TABLE doctor")
    print(f"seed {seed}: {rounds} races under serializable, write skew {broken}")
    return broken
