"""Django's cursors, which leave word of what they run: for the report of a long loan, for deadlocks and statistics.

They stand behind Django's execute wrappers, since one of those takes as long as all that is done here.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

from dbresilience.observations.errors import observe_error
from dbresilience.observations.pending import pending
from dbresilience.observations.statements import slow_statement_count

_IDLE: Final = int(TransactionStatus.IDLE)


def _observed(session: Any, run: Callable[..., Any], query: Any, params: Any, options: Any) -> Any:
    """Note the statement, without its parameters, in the trail of its session, and count it and its error."""
    trail = session.trail
    # What comes now begins a transaction, if only its own.
    if session.pgconn.transaction_status == _IDLE:
        trail.clear()
    trail.append(query)
    slow_from = session.slow_from
    if slow_from is None:
        return run(query, params, **options)
    started = perf_counter()
    try:
        return run(query, params, **options)
    except psycopg.Error as exc:
        observe_error(exc, trail)
        raise
    finally:
        seconds = perf_counter() - started
        pending.count_statement(seconds)
        if seconds >= slow_from:
            slow_statement_count(query, seconds)


class _Observed:
    """What a cursor of a ``Connection`` of ours runs is observed."""

    _conn: Any

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        return _observed(self._conn, super().execute, query, params, options)  # type: ignore[misc]

    def executemany(self, query: Any, params_seq: Any, **options: Any) -> Any:
        return _observed(self._conn, super().executemany, query, params_seq, options)  # type: ignore[misc]


class Cursor(_Observed, base.Cursor):
    """Binds parameters in the client, as Django does by default."""


class ServerBindingCursor(_Observed, base.ServerBindingCursor):
    """Binds parameters in the server, for ``OPTIONS["server_side_binding"]``."""


class ServerSideCursor(_Observed, base.ServerSideCursor):
    """Reads a result in pieces, and binds parameters in the client."""


class ServerBindingServerSideCursor(_Observed, psycopg.ServerCursor[Any]):
    """Reads a result in pieces, and binds parameters in the server."""
