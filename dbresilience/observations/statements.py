"""Timing of every statement, and the trail of what a transaction ran."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.pq import TransactionStatus

from dbresilience.monitor.conf import monitor_settings
from dbresilience.observations.errors import observe_error
from dbresilience.observations.names import TallyName
from dbresilience.observations.pending import pending
from dbresilience.observations.writer import start
from dbresilience.statements import normalised

_is_begun = False

_IDLE: Final = int(TransactionStatus.IDLE)

TRAIL: Final = 50
"""Statements of one transaction that are remembered."""


class StatementObserver:
    """An execute wrapper of Django's: one for each connection, which one thread uses at a time."""

    def __init__(self, slow_seconds: float) -> None:
        self._slow_seconds = slow_seconds
        self._outermost: object = None
        self.trail: deque[object] = deque(maxlen=TRAIL)

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        connection = context["connection"]
        session, blocks = connection.connection, connection.atomic_blocks
        outermost = blocks[0] if blocks else None
        # Another outermost block is another transaction; so is the same one again (a decorator's), which the server has
        # not seen begin.
        if outermost is not self._outermost or (session is None or session.pgconn.transaction_status == _IDLE):
            self.trail.clear()
            self._outermost = outermost
        self.trail.append(sql)
        started = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        except Error as exc:
            observe_error(exc, self.trail)
            raise
        finally:
            seconds = time.perf_counter() - started
            pending.count_statement(seconds)
            if seconds >= self._slow_seconds:
                pending.count(TallyName.SLOW_STATEMENT, normalised(str(sql)), seconds)


def observation_begin() -> None:
    """Have the connections of our backend observed; the app does so when it is installed, and its tables with it."""
    global _is_begun
    _is_begun = True


def observe_connection(connection: BaseDatabaseWrapper, observer: StatementObserver | None) -> StatementObserver | None:
    """Called at each checkout: the connection's observer, made at the first one; None when nothing is observed."""
    if not _is_begun:
        return None
    if observer is None:
        observer = StatementObserver(monitor_settings().slow_query_ms / 1000)
        connection.execute_wrappers.append(observer)
    start()
    return observer


def trail_of(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """What the transaction under way on a connection ran, latest last; as sent, so never to be shown as it is."""
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, StatementObserver):
            return tuple(str(statement) for statement in wrapper.trail)
    return ()
