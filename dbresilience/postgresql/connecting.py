"""How a pool connects: at steady intervals while the server is away, and telling those who wait."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool
from psycopg_pool.base import AttemptWithBackoff
from psycopg_pool.pool import AddConnection

from dbresilience.postgresql.connection import Connection
from dbresilience.postgresql.loans import Loans

RECONNECT_EVERY = 0.5
"""Seconds between two attempts to connect, at most; psycopg's own grow without a bound, and so does an outage."""

OUTAGE_AFTER = 1.0
"""Seconds of failing to connect after which waiting for a connection is given up, when there is none at all."""


class _SteadyAttempt(AttemptWithBackoff):
    """Attempts to connect that never lie further apart than ``RECONNECT_EVERY``."""

    INITIAL_DELAY = 0.05

    def update_delay(self, now: float) -> None:
        super().update_delay(now)
        self.delay = min(self.delay, RECONNECT_EVERY)


class ConnectingPool(ConnectionPool[Connection]):
    """psycopg's pool, which tries to connect again soon and sends those away who would wait in vain.

    What psycopg_pool keeps private and this class touches: ``_lock``, ``_pool``, ``_waiting``, ``_connect``,
    ``_add_connection``, ``_nconns``, ``_maybe_grow_pool``.

    Attributes:
        size: connections that are kept.
        last_connect_error: class of the latest error; empty before there was one.
    """

    def __init__(self, **options: Any) -> None:
        self.size = 0
        self.last_connect_error = ""
        self._loans = Loans()
        self._failing_since: float | None = None
        super().__init__(**options)

    def _connect(self, timeout: float | None = None) -> Connection:
        try:
            connection = super()._connect(timeout)
        except Exception as exc:
            self.last_connect_error = type(exc).__name__
            self._fail_waiting(exc)
            raise
        self._failing_since = None
        return connection

    def _fail_waiting(self, error: Exception) -> None:
        """Tell who waits that the server is away, once that has lasted: nobody holds a connection that could come."""
        now = time.monotonic()
        since = self._failing_since = self._failing_since or now
        if now - since < OUTAGE_AFTER:
            return
        with self._lock:
            if self._loans or self._pool:
                return
            waiting, self._waiting = list(self._waiting), deque()
        for one in waiting:
            away = psycopg.OperationalError(f"the server cannot be reached: {type(error).__name__}")
            away.__cause__ = error
            one.fail(away)

    def _maybe_grow_pool(self) -> None:
        """Have connections made for those who wait: at once for each, until there are as many as are kept.

        psycopg makes one at a time, which is right beyond, where the wait for one that comes back is short. Called with
        the lock held.
        """
        under_way = self._nconns - len(self._pool) - len(self._loans)
        if self._nconns < self.size and under_way < len(self._waiting):
            self._nconns += 1
            self.run_task(AddConnection(self))
        else:
            super()._maybe_grow_pool()

    def _add_connection(self, attempt: AttemptWithBackoff | None, growing: bool = False) -> None:
        super()._add_connection(attempt or _SteadyAttempt(timeout=self.reconnect_timeout), growing=growing)
