"""Writing down what this process observed: a thread with a connection of its own, apart from every transaction.

Nothing waits for it and nothing fails with it: while the database is away the counts stay in memory, which is bounded,
and are written when it is back. What a killed process had not yet written is lost; that is a few seconds of counts.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Final

import psycopg
import structlog

from dbresilience.deadlocks.seen import deadlocks_write
from dbresilience.monitor.conf import monitor_settings
from dbresilience.monitor.connection import monitor_connection
from dbresilience.observations.pending import pending
from dbresilience.observations.processes import process_report
from dbresilience.observations.rows import tallies_write, violations_write

DEADLINE: Final = 5.0

log = structlog.get_logger(__name__)


class _Writer:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self.is_started = False

    def start(self, interval: float) -> None:
        # Asked at every checkout; the interval is one of the start.
        self.is_started = True
        if interval == 0:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(interval,), name="observations", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def _run(self, interval: float) -> None:
        while True:
            self._woken.wait(interval)
            self._woken.clear()
            try:
                observations_write()
            except Exception as exc:  # noqa: BLE001 - this thread must outlive whatever goes wrong; the counts are kept
                log.warning("observations_not_written", error=type(exc).__name__)


def start() -> None:
    """Start this process's writer, unless it runs or ``DB_STATISTICS_INTERVAL`` is 0."""
    if not _writer.is_started:
        _writer.start(monitor_settings().statistics_interval)


def wake() -> None:
    """Write soon rather than at the end of the interval."""
    _writer.wake()


def observations_write(deadline: float = DEADLINE) -> int:
    """Write everything observed so far; returns how many rows were added or added to.

    Raises:
        psycopg.Error: the database is away; everything stays pending.
    """
    batch = pending.take()
    try:
        with monitor_connection(deadline=deadline, read_only=False) as connection:
            # First, since what the other side of a deadlock is doing is soon over.
            written = deadlocks_write(connection, batch.deadlocks)
            written += tallies_write(connection, batch.tallies)
            written += violations_write(connection, batch.violations)
            return written + process_report(connection)
    except BaseException:
        pending.give_back(batch)
        raise


def _write_the_last() -> None:
    if not pending or monitor_settings().statistics_interval == 0:
        return
    try:
        observations_write(deadline=1.0)
    except psycopg.Error as exc:
        log.info("observations_lost", error=type(exc).__name__)


def _begin_anew() -> None:
    """In a forked child: the thread is the parent's, and so is what it had counted."""
    global _writer
    _writer = _Writer()
    pending.__init__()  # type: ignore[misc]


_writer = _Writer()
os.register_at_fork(after_in_child=_begin_anew)
atexit.register(_write_the_last)
