"""psycopg's connection pool, which serves no dead connection, measures itself and knows its borrowers."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from math import inf
from typing import Any, Final

import psycopg
import structlog
from django.core.exceptions import ImproperlyConfigured
from psycopg.pq import TransactionStatus
from psycopg_pool import PoolTimeout, TooManyRequests
from psycopg_pool.pool import AddConnection

from dbresilience.conf import PoolSettings
from dbresilience.postgresql.borrowing import Borrowing
from dbresilience.postgresql.connecting import ConnectingPool
from dbresilience.postgresql.connection import Connection
from dbresilience.postgresql.stats import PoolStats, Reservoir

CHECK_AFTER = 0.5
"""Seconds without use after which a connection is asked before it is served (HikariCP's rule)."""

LOOK_AFTER = 0.001
"""The same for the look at its socket. What ends a session within that time may as well end it a moment later, in the
middle of the request; under load the look would be a tenth of what a short request costs."""

_IDLE: Final = int(TransactionStatus.IDLE)

log = structlog.get_logger(__name__)


class Pool(ConnectingPool):
    """A pool of ``size`` connections that are kept and ``max_overflow`` that close soon after use.

    Each opens when it is first needed, as in SQLAlchemy's QueuePool, so that a process with one thread holds one. On
    the first sight of a dead connection the others are looked at, before anybody gets one of them.

    What psycopg_pool keeps private and this class touches: ``_lock``, ``_pool``, ``_nconns``, ``_nconns_min``,
    ``_check_connection``, ``_shrink_pool``, ``_return_connection``, ``_putconn``, ``_waiting``, ``_closed``,
    ``_reset``, ``_stats``; of its connections ``_pool``, ``_created_at``, ``_expire_at``.
    """

    def __init__(self, *, alias: str, config: PoolSettings, strict: bool, **options: Any) -> None:
        """Make a pool that is not open yet.

        Args:
            alias: of the database.
            config: the settings.
            strict: whether each connection is asked before it is served, however recently it was used.
            options: further ones of psycopg's pool; they win.

        Raises:
            ImproperlyConfigured: the sizes make no sense together.
        """
        given: dict[str, Any] = {
            "min_size": 0,
            "max_size": max(config.size + config.max_overflow, options.get("min_size", 0)),
            "timeout": config.timeout,
            "max_lifetime": config.recycle,
            "max_idle": config.overflow_idle,
            "connection_class": Connection,
            "name": alias,
        } | options
        try:
            super().__init__(open=False, **given)
        except (TypeError, ValueError) as exc:
            raise ImproperlyConfigured(f'DATABASES["{alias}"]["OPTIONS"]["pool"]: {exc}.') from exc
        size = options.get("min_size") or min(config.size, self.max_size)
        self.owner = os.getpid()
        self.alias = alias
        self.size = size
        self.max_overflow = self.max_size - size
        self.lifetime = config.session_timeout or inf
        self.counted: Counter[str] = Counter()
        self._config = config
        self._strict = strict
        self._waits = Reservoir()
        self._sweeping = threading.Lock()
        self._suspect_before = -inf

    def __del__(self) -> None:
        # A pool inherited by fork: its threads do not exist here, and its lock may be held for ever.
        if getattr(self, "owner", None) == os.getpid():
            super().__del__()

    def getconn(self, timeout: float | None = None) -> Connection:
        """Borrow a connection that is alive; as in psycopg, measured."""
        asked = time.monotonic()
        connection = self._take_idle(asked)
        if connection is None:
            try:
                connection = super().getconn(timeout)
            except (PoolTimeout, TooManyRequests):
                self.counted["timeouts"] += 1
                # Who was sent away waited longest of all.
                self._waits.add(time.monotonic() - asked)
                raise
        now = connection.lent_at = time.monotonic()
        self._waits.add(now - asked)
        self._loans.lend(connection, now)
        return connection

    def putconn(self, conn: Connection) -> None:
        """Return a connection; as in psycopg, measured."""
        now = time.monotonic()
        conn.returned_at = now
        conn.deadline = None
        borrowing = self._loans.take_back(conn, now)
        if borrowing is not None:
            if borrowing.warned:
                self._say_returned(borrowing, now)
            if borrowing.reclaimed:
                # Its place was given to another one when it was taken away.
                self._close_connection(conn)
                return
        conn.trail.clear()
        if conn.unlimited or not self._put_idle(conn, now):
            broken = conn.closed
            if conn.unlimited:
                conn.close()
            super().putconn(conn)
            if broken and not self.closed:
                self.sweep()

    def sweep(self) -> None:
        """Throw out every idle connection that is visibly dead, and have the rest asked before they are served."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            with self._lock:
                idle = list(self._pool)
                self._pool.clear()
                self._suspect_before = time.monotonic()
            self.counted["sweeps"] += 1
            for connection in idle:
                if connection.seems_gone():
                    self.counted["dead_found"] += 1
                    self._close_connection(connection)
                    self.run_task(AddConnection(self))
                else:
                    self._add_to_pool(connection)
        finally:
            self._sweeping.release()

    def stats(self) -> PoolStats:
        """What there is now, and what was counted."""
        borrowed = self._loans.open()
        figures = self.get_stats()
        requests = figures.get("requests_num", 0)
        capacity = self.max_size
        now = time.monotonic()
        return PoolStats(
            alias=self.alias,
            pid=self.owner,
            size=self.size,
            max_overflow=self.max_overflow,
            open=figures["pool_size"],
            idle=figures["pool_available"],
            borrowed=len(borrowed),
            overflow=max(0, figures["pool_size"] - self.size),
            waiting=self._count_waiting(),
            utilisation=round(len(borrowed) / capacity, 4),
            longest_hold=max((now - one.since for one in borrowed), default=None),
            requests=requests,
            queued=figures.get("requests_queued", 0),
            connects=figures.get("connections_num", 0),
            connect_errors=figures.get("connections_errors", 0),
            last_connect_error=self.last_connect_error,
            wait=self._waits.percentiles(requests),
            hold=self._loans.holds.percentiles(requests - len(borrowed)),
            **{name: self.counted[name] for name in _COUNTED},
        )

    def borrowings(self) -> list[Borrowing]:
        """The loans of this moment."""
        return self._loans.open()

    def make_good(self) -> None:
        """Free the places of connections whose holder vanished without returning them."""
        for borrowing in self._loans.take_lost():
            self.counted["lost"] += 1
            log.warning(
                "connection_lost_by_borrower", alias=self.alias, work=borrowing.work, borrowed_at=borrowing.stack()
            )
            with self._lock:
                self._nconns -= 1
                if self._waiting:
                    self._maybe_grow_pool()

    def reclaim(self, borrowing: Borrowing) -> None:
        """Take a connection away from its holder, whose next use of it fails, and put a new one in its place."""
        connection = borrowing.connection()
        if connection is None or not self._loans.end(borrowing):
            return
        borrowing.reclaimed = True
        self.counted["reclaimed"] += 1
        # A socket that another thread may be reading is shut down, which wakes the reader; closing it would not.
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
        self.run_task(AddConnection(self))

    def abandon(self) -> None:
        """After a fork, in the child: forget the parent's connections without a word to the server.

        The child's copies of the sockets are closed, so that the server sees the parent's end when it comes.
        """
        held = [one.connection() for one in self._loans.open()]
        for connection in [*self._pool, *held]:
            if connection is not None and not connection.closed:
                with suppress(OSError, psycopg.Error):
                    os.close(connection.fileno())

    def _take_idle(self, now: float) -> Connection | None:
        """An idle connection that is alive, if there is one: psycopg's ``getconn`` without what it does to wait."""
        with self._lock:
            if self._closed or not self._pool:
                return None
            connection = self._pool.popleft()
            left = len(self._pool)
            if left < self._nconns_min:
                self._nconns_min = left
        unused = self._unused_for(connection, now)
        if unused >= LOOK_AFTER and (unused >= CHECK_AFTER or connection.seems_gone()):
            try:
                self._check_connection(connection)
            except BaseException as exc:
                self._putconn(connection, from_getconn=True)
                if isinstance(exc, psycopg.Error):
                    return None
                raise
        self._stats[self._REQUESTS_NUM] += 1
        connection._pool = self
        return connection

    def _put_idle(self, conn: Connection, now: float) -> bool:
        """Put back a connection that nobody waits for and that may stay; otherwise psycopg's ``putconn`` is needed."""
        if conn._pool is not self or self._reset or conn.pgconn.transaction_status != _IDLE:
            return False
        if conn._expire_at <= now or conn._created_at <= self._drained_at:
            return False
        with self._lock:
            if self._closed or self._waiting:
                return False
            conn._pool = None
            # The one that comes back last is served first: it needs no check, and server and client have it in mind.
            self._pool.appendleft(conn)
        return True

    def _unused_for(self, conn: Connection, now: float) -> float:
        """Seconds for which a connection lay here; as good as for ever when it is suspect, or each one is."""
        suspect = self._strict or conn.returned_at <= self._suspect_before
        return inf if suspect else now - conn.returned_at

    def _check_connection(self, conn: Connection) -> None:
        now = time.monotonic()
        if not conn.seems_gone():
            is_new = conn.returned_at == -inf and now - conn._created_at < CHECK_AFTER
            if is_new or self._unused_for(conn, now) < CHECK_AFTER:
                return
        if conn.answers(self._config.check_timeout):
            return
        self.counted["dead_found"] += 1
        silent = time.monotonic() - now >= self._config.check_timeout
        log.warning("dead_connection_found", alias=self.alias, silent=silent)
        if not silent:
            self.sweep()
        elif conn._created_at > self._drained_at:
            # Behind a peer that fell silent each of the others would cost the whole time-out too.
            self.counted["drains"] += 1
            self.drain()
        raise psycopg.OperationalError("the connection is dead")

    def _return_connection(self, conn: Connection, from_getconn: bool) -> None:
        if not from_getconn and not conn.closed and conn._expire_at <= time.monotonic():
            self.counted["recycled"] += 1
        super()._return_connection(conn, from_getconn)

    def _shrink_pool(self) -> None:
        """Close what of the overflow nobody used since the last look; psycopg closes one, which takes for ever."""
        with self._lock:
            unused = min(self._nconns - max(self.size, self._min_size), self._nconns_min, len(self._pool))
            spare = [self._pool.pop() for _ in range(unused)]
            self._nconns -= len(spare)
            self._nconns_min = len(self._pool)
        self.counted["overflow_closed"] += len(spare)
        for connection in spare:
            self._close_connection(connection)

    def _count_waiting(self) -> int:
        """How many wait; psycopg leaves those that gave up in its queue until a connection comes back."""
        with self._lock:
            return sum(one.conn is None and one.error is None for one in self._waiting)

    def _say_returned(self, borrowing: Borrowing, now: float) -> None:
        # As loud as the warning that it ends, so that nobody hears one without the other.
        log.warning(
            "connection_returned_late",
            alias=self.alias,
            work=borrowing.work,
            seconds=round(now - borrowing.since, 1),
            backend=borrowing.pid,
        )


_COUNTED = (
    "timeouts",
    "dead_found",
    "sweeps",
    "drains",
    "recycled",
    "overflow_closed",
    "long_holds",
    "lost",
    "reclaimed",
    "refreshed",
    "answer_timeouts",
    "rollback_failures",
)
