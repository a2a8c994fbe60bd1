"""The measurements: each interleaves the ways it compares, so that what else the machine does hits all of them."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from django.db import IntegrityError, connections, transaction

from dbresilience import constraints
from dbresilience.transactions import run_in_transaction

POOLS = ("django_pool", "django_pool_checked", "ours")
_TASKS, _WARM_UP = 400, 60


def checkout(rounds: int = 40, times: int = 250) -> dict[str, float]:
    """Microseconds to get a connection that was used a moment ago, p50 and p99, one thread."""
    samples: dict[str, list[float]] = {way: [] for way in POOLS}
    for way in POOLS:
        connections[way].ensure_connection()
        connections[way].close()
    for number in range(rounds):
        for way in _turned(POOLS, number):
            wrapper = connections[way]
            for _ in range(times):
                started = time.perf_counter()
                wrapper.ensure_connection()
                samples[way].append(time.perf_counter() - started)
                wrapper.close()
    found: dict[str, float] = {}
    for way, values in samples.items():
        values.sort()
        found[f"{way} p50 µs"] = values[len(values) // 2] * 1e6
        found[f"{way} p99 µs"] = values[int(len(values) * 0.99)] * 1e6
    found["ours over django_pool µs"] = found["ours p50 µs"] - found["django_pool p50 µs"]
    found["django_pool_checked / ours"] = found["django_pool_checked p50 µs"] / found["ours p50 µs"]
    return found


def forty_threads(rounds: int = 24, seconds: float = 0.25) -> dict[str, float]:
    """Requests a second of 40 threads, each a checkout, a statement and a return, and the processor time of this
    process for each; medians of the rounds, and the median of what each round says of the two.

    All pools are full before: they begin with different numbers of connections. And all of those were just used, as
    they are under such a load: ours asks one that lay unused. The rate depends on what else the machine does, even so;
    processor time much less.
    """
    rates: dict[str, list[float]] = {way: [] for way in POOLS}
    costs: dict[str, list[float]] = {way: [] for way in POOLS}
    for number in range(rounds):
        for way in _turned(POOLS, number):
            _fill(way, 40)
            rate, cost = _rate(way, seconds)
            rates[way].append(rate)
            costs[way].append(cost)
    found = {f"{way} requests/s": statistics.median(values) for way, values in rates.items()}
    found |= {f"{way} processor µs": statistics.median(values) * 1e6 for way, values in costs.items()}
    found["ours / django_pool"] = _median_ratio(rates["ours"], rates["django_pool"])
    found["processor time, ours / django_pool"] = _median_ratio(costs["ours"], costs["django_pool"])
    return found


def one_thread(rounds: int = 60, times: int = 150) -> dict[str, float]:
    """Processor time of this process for a checkout, a statement and a return, in one thread: of the rounds the
    cheapest, which nothing else disturbed."""
    ways = ("django_pool", "ours")
    costs: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in _turned(ways, number):
            ask = _asking(way)
            started = time.process_time()
            for _ in range(times):
                ask()
                connections[way].close()
            costs[way].append((time.process_time() - started) / times)
    found = {f"{way} processor µs": min(values) * 1e6 for way, values in costs.items()}
    found["processor time, ours / django_pool"] = found["ours processor µs"] / found["django_pool processor µs"]
    return found


def retried_transaction(rounds: int = 40, times: int = 50) -> dict[str, float]:
    """Microseconds of ``atomic`` and of ``run_in_transaction`` around one and the same statement, in turns: p50, and
    the p50 of the difference of neighbours."""
    with connections["ours"].cursor() as cursor:
        cursor.execute("CREATE TABLE counter (value int); INSERT INTO counter VALUES (0)")

    def ask() -> None:
        with connections["ours"].cursor() as cursor:
            cursor.execute("UPDATE counter SET value = value + 1")

    def plain() -> None:
        with transaction.atomic(using="ours"):
            ask()

    ways: dict[str, Callable[[], object]] = {
        "atomic": plain,
        "retried": lambda: run_in_transaction(ask, using="ours"),
    }
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for turn in range(times):
            for way in _turned(tuple(ways), number + turn):
                started = time.perf_counter()
                ways[way]()
                samples[way].append(time.perf_counter() - started)
        with connections["ours"].cursor() as cursor:
            cursor.execute("VACUUM counter")
    connections["ours"].close()
    found = {f"{way} p50 µs": statistics.median(values) * 1e6 for way, values in samples.items()}
    pairs = zip(samples["retried"], samples["atomic"], strict=True)
    found["retried over atomic µs"] = statistics.median(retried - atomic for retried, atomic in pairs) * 1e6
    return found


def constraint_translation(times: int = 300) -> dict[str, float]:
    """Microseconds from an ``IntegrityError`` to a ``ConstraintViolation``: columns known, and looked up for the first
    time inside the failed transaction, which takes a connection of its own; p50."""
    wrapper = connections["ours"]
    with wrapper.cursor() as cursor:
        cursor.execute("CREATE TABLE taken (id int PRIMARY KEY, email text UNIQUE); INSERT INTO taken VALUES (1, 'a')")
    samples: dict[str, list[float]] = {"translated": [], "first look": []}
    for number in range(times):
        way = "first look" if number % 10 == 0 else "translated"
        if way == "first look":
            constraints._columns.clear()
        try:
            with transaction.atomic(using="ours"), wrapper.cursor() as cursor:
                cursor.execute("INSERT INTO taken VALUES (2, 'a')")
        except IntegrityError as exc:
            started = time.perf_counter()
            violation = constraints.constraint_violation(exc, using="ours")
            samples[way].append(time.perf_counter() - started)
            assert violation.columns == ("email",)
    wrapper.close()
    return {f"{way} p50 µs": statistics.median(values) * 1e6 for way, values in samples.items()}


def celery_prefork(redis_url: str, log: Path, rounds: int = 3) -> dict[str, float]:
    """Tasks a second of a prefork worker with two children, and how many backends 400 tasks used."""
    ways = ("no_pool", "ours")
    rates: dict[str, list[float]] = {way: [] for way in ways}
    backends: dict[str, int] = {}
    for number in range(rounds):
        for way in _turned(ways, number):
            rate, backends[way] = _run_tasks(way, redis_url, log)
            rates[way].append(rate)
    found = {f"{way} tasks/s": statistics.median(values) for way, values in rates.items()}
    found |= {f"{way} backends": float(count) for way, count in backends.items()}
    found["ours / no_pool"] = found["ours tasks/s"] / found["no_pool tasks/s"]
    return found


def _run_tasks(way: str, redis_url: str, log: Path) -> tuple[float, int]:
    client = redis.Redis.from_url(redis_url)
    client.flushdb()
    from benchmarks.dbresilience.tasks import ask

    for _ in range(_TASKS):
        ask.delay()
    environment = os.environ | {"BENCHMARK_WAY": way, "CELERY_SKIP_CHECKS": "1"}
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.dbresilience.tasks", "worker"]
    command += ["--pool=prefork", "--concurrency=2", "--loglevel=ERROR", "--without-gossip", "--without-mingle"]
    with log.open("ab") as output:
        worker = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while client.llen("asked") < _TASKS:
            if worker.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the worker did not do its tasks; see {log}")
            time.sleep(0.05)
    finally:
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(timeout=30)
    lines = [line.decode().split() for line in client.lrange("asked", 0, -1)]
    client.close()
    moments = sorted(float(moment) for moment, _ in lines)
    rate = (_TASKS - _WARM_UP) / (moments[-1] - moments[_WARM_UP - 1])
    return rate, len({backend for _, backend in lines})


def _fill(way: str, count: int) -> None:
    connections[way].ensure_connection()
    connections[way].close()
    wrapper: Any = connections[way]
    pool = wrapper.pool
    held = [pool.getconn() for _ in range(count)]
    for connection in held:
        pool.putconn(connection)


def _rate(way: str, seconds: float) -> tuple[float, float]:
    """Requests a second, and seconds of the processor for each."""
    counts = [0] * 40
    start = threading.Barrier(41)
    ask = _asking(way)

    def work(number: int) -> None:
        start.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            ask()
            connections[way].close()
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    before = time.process_time()
    start.wait()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds, (time.process_time() - before) / sum(counts)


def _median_ratio(ones: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def _asking(way: str) -> Callable[[], None]:
    def ask() -> None:
        with connections[way].cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()

    return ask


def _turned(ways: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Another one first each time."""
    first = number % len(ways)
    return ways[first:] + ways[:first]
