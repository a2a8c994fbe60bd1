"""What is measured: functions that prepare, run once and return a figure."""

from __future__ import annotations

import statistics
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from benchmarks.outbox import load
from benchmarks.projections.measured import CHECKSUM, CHECKSUM_WITHOUT_KEYS, SHAPES, by_hand
from benchmarks.projections.peer import PER_AGGREGATE, Built
from benchmarks.projections.processors import processor_seconds
from outbox.events import NewEvent
from outbox.publishing import publish, publish_many
from outbox.sequencing import Sequencer
from projections.builds import builds_ensure
from projections.registry import projections
from projections.runner import projections_run_once

PATH = "benchmarks.projections.measured"
BATCH = 5_000


def prepare(*names: str, events: int, old: int = 0, like_peer: bool = False) -> int:
    """A log of so many sequenced events, after ``old`` ones that are done with; where the new ones begin.

    They are of 1,000 aggregates in turn, or those that the peer publishes: 20 of an aggregate in a row.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {load.TABLES} CASCADE")
    settings.PROJECTIONS = [f"{PATH}.{name}" for name in names]
    projections.cache_clear()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE projections_build CASCADE")
        cursor.execute("SELECT 1 FROM pg_class WHERE relname = 'bench_hand'")
        if cursor.fetchone() is None:
            cursor.execute(SHAPES)
        cursor.execute("TRUNCATE bench_hand, bench_hand_checkpoint")
    start = 0
    if old:
        load.fill_old(old)
    start = _head()
    if like_peer:
        _publish_like_peer(events)
    else:
        load.publish_all(load.keys("uniform", events))
    _sequence()
    if names:
        builds_ensure()
        with connection.cursor() as cursor:
            cursor.execute("UPDATE projections_build SET cursor = %s", [start])
    return start


def catch_up(*names: str, events: int) -> float:
    """Events per second through the engine, for each projection; with several, each takes all events."""
    prepare(*names, events=events)
    return _run(events, len(names)).rate


def catch_up_like_peer(events: int) -> Built:
    """The same with the peer's events."""
    prepare("ByBatch", events=events, like_peer=True)
    return _run(events, 1)


def catch_up_after(old: int, *, events: int, runs: int) -> tuple[list[Built], list[Built]]:
    """Catching up in a log of nothing else, behind so many events, which are written once, and alone again: so that a
    machine that grows faster or slower meanwhile favours neither side."""
    alone = [_alone(events) for _ in range(runs)]
    prepare("ByBatch", events=events, old=old)
    behind = [_run(events, 1)]
    while len(behind) < 2 * runs:
        load.publish_all(load.keys("uniform", events))
        _sequence()
        behind.append(_run(events, 1))
    alone += [_alone(events) for _ in range(runs)]
    return alone, behind


def _alone(events: int) -> Built:
    prepare("ByBatch", events=events)
    return _run(events, 1)


def _run(events: int, builds: int) -> Built:
    before, began = processor_seconds(postmaster()), time.perf_counter()
    done = projections_run_once(seconds=600)
    seconds, after = time.perf_counter() - began, processor_seconds(postmaster())
    assert done >= events * builds, done
    computed = float("nan") if before is None or after is None else after - before
    with connection.cursor() as cursor:
        cursor.execute(CHECKSUM_WITHOUT_KEYS)
        checksum = [str(value) for value in cursor.fetchone()]
    return Built(events / seconds, computed / events * 1e6, checksum)


@cache
def postmaster() -> int:
    """The process of our server."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('data_directory')")
        return int((Path(cursor.fetchone()[0]) / "postmaster.pid").read_text().splitlines()[0])


def hand(events: int) -> float:
    """The same by the loop by hand."""
    start = prepare(events=events)
    began = time.perf_counter()
    done = by_hand(start, BATCH)
    seconds = time.perf_counter() - began
    assert done == events, done
    return events / seconds


def same_rows(events: int) -> bool:
    """Whether engine and hand end with the same table."""
    found: list[Any] = []
    for table, run in (
        ("bench_batch", lambda: catch_up("ByBatch", events=events)),
        ("bench_single", lambda: catch_up("Single", events=events)),
        ("bench_hand", lambda: hand(events)),
    ):
        run()
        with connection.cursor() as cursor:
            cursor.execute(CHECKSUM.format(table))
            found.append(cursor.fetchone())
    return len(set(found)) == 1


def latency(seconds: float, rate: int) -> dict[str, float]:
    """Milliseconds from commit to the row that readers see, at so many events a second, with a relay's companion."""
    from outbox.relaying import Relay

    prepare("ByBatch", events=10)
    settings.OUTBOX_SUBSCRIBERS = []
    settings.OUTBOX_RELAY_COMPANIONS = ["projections.runner.projections_run_once"]
    relay = Relay()
    relay.start()
    committed: dict[int, float] = {}
    seen: list[float] = []
    done = threading.Event()

    def watch() -> None:
        try:
            position = 0
            while not done.is_set() or committed:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT last_event_id FROM projections_build WHERE state = 'live'")
                    (last,) = cursor.fetchone()
                now = time.perf_counter()
                if last and last > position:
                    position = last
                    seen.extend((now - committed.pop(event)) * 1000 for event in sorted(committed) if event <= last)
                time.sleep(0.001)
        finally:
            connection.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, count = time.perf_counter(), 0
    try:
        while (elapsed := time.perf_counter() - began) < seconds:
            while count < elapsed * rate:
                with transaction.atomic():
                    event = publish(load.new(f"c{count % 1000}"))
                committed[event] = time.perf_counter()
                count += 1
            time.sleep(0.0005)
    finally:
        time.sleep(1)
        done.set()
        watcher.join(20)
        relay.stop()
    ordered = sorted(seen)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[int(len(ordered) * 0.99)],
        "max": ordered[-1],
        "rate": count / seconds,
    }


def _sequence() -> None:
    sequencer = Sequencer()
    while (run := sequencer.sequence_once()) is not None and run.events:
        pass
    load.settle()


def _publish_like_peer(events: int) -> None:
    for start in range(0, events, BATCH):
        with transaction.atomic():
            publish_many(_renamed(number) for number in range(start, min(events, start + BATCH)))


def _renamed(number: int) -> NewEvent:
    aggregate, nth = divmod(number, PER_AGGREGATE)
    return load.new(f"c{aggregate}", payload={**load.PAYLOAD, "name": f"n{aggregate}-{nth}"})


def _head() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_log_position_seq")
        return int(cursor.fetchone()[0])
