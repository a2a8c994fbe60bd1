"""A thread that looks at the loans of all pools once a second: too long, vanished, over their session's age."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterable

import structlog

from dbresilience.conf import PoolSettings, pool_settings
from dbresilience.postgresql.borrowing import Borrowing
from dbresilience.postgresql.pool import Pool
from dbresilience.work import long_operation_of

log = structlog.get_logger(__name__)


class Watcher:
    """Looks at the pools from a daemon thread of its own, started with the first pool."""

    def __init__(self, pools: Callable[[], Iterable[Pool]], *, interval: float = 1.0) -> None:
        """Make a watcher that does not run yet.

        Args:
            pools: the pools of this process.
            interval: seconds between two looks.
        """
        self._pools = pools
        self._interval = interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="dbresilience-watcher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, within the look that is under way."""
        self._stop.set()

    def forget(self) -> None:
        """After a fork, in the child: the thread stayed behind."""
        self._thread = None
        self._stop = threading.Event()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                watch_once(self._pools())
            except Exception:
                # One look that fails must not end all later ones.
                log.exception("watching_connections_failed")


def watch_once(pools: Iterable[Pool]) -> int:
    """Look at every loan once; returns how many were reported.

    Raises:
        ImproperlyConfigured: a setting is out of its range.
    """
    config = pool_settings()
    reported = 0
    for pool in pools:
        if any(not borrowing.thread_object.is_alive() for borrowing in pool.borrowings()):
            # Django's wrapper lies in a circle of references: until it is collected nobody can tell whether the
            # connection of a thread that ended is still in somebody's hands.
            gc.collect()
        pool.make_good()
        reported += sum(_look_at(pool, borrowing, config) for borrowing in pool.borrowings())
    return reported


def _look_at(pool: Pool, borrowing: Borrowing, config: PoolSettings) -> bool:
    age = time.monotonic() - borrowing.since
    operation = long_operation_of(borrowing.thread)
    if operation is not None:
        if not operation.is_over_time or borrowing.warned:
            return False
        _report(pool, borrowing, age, operation=operation.name, allowed=operation.seconds)
        return True
    due = config.leak_warning and age > config.leak_warning and not borrowing.warned
    # Once more when it has become a session that is older than any should be.
    aged = config.session_timeout and age > config.session_timeout > borrowing.warned > 0
    if due or aged:
        _report(pool, borrowing, age)
    if config.leak_reclaim and age > config.leak_reclaim:
        log.warning("connection_reclaimed", alias=pool.alias, work=borrowing.work, seconds=round(age, 1))
        pool.reclaim(borrowing)
    return bool(due or aged)


def _report(pool: Pool, borrowing: Borrowing, age: float, **more: object) -> None:
    borrowing.warned = age
    pool.counted["long_holds"] += 1
    log.warning(
        "connection_held_long",
        alias=pool.alias,
        work=borrowing.work,
        seconds=round(age, 1),
        backend=borrowing.pid,
        borrowed_at=borrowing.stack(),
        now_at=borrowing.stack_now(),
        last_statement=borrowing.last_statement(),
        **more,
    )
