"""The monitor's own connection: never one of the pool's, never without an end."""

from __future__ import annotations

import math
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.rows import DictRow, dict_row

from dbresilience.monitor.conf import monitor_settings

MonitorConnection = psycopg.Connection[DictRow]

APPLICATION: Final = "zenskar monitor"

# Serves monitor_connection. For this transaction alone: behind a pooler that hands the session on, a plain SET would
# go on for whoever gets it next.
LIMITS_SQL: Final = """
SELECT set_config('statement_timeout', %(milliseconds)s, true), set_config('lock_timeout', %(milliseconds)s, true),
       set_config('transaction_read_only', %(read_only)s, true), set_config('jit', 'off', true)
"""


@contextmanager
def monitor_connection(
    *, using: str = DEFAULT_DB_ALIAS, deadline: float | None = None, read_only: bool = True
) -> Iterator[MonitorConnection]:
    """A connection, in a transaction, that is opened for this block and closed after it.

    The pool may be what is broken, and a request's transaction may already have failed; so neither is used. A nested
    ``connection.transaction()`` is a savepoint: one question that fails leaves the others their answers.

    Args:
        using: alias of the database.
        deadline: seconds for the whole block; None takes ``DB_MONITOR_DEADLINE``.
        read_only: whether the block may write nothing.

    Raises:
        psycopg.Error: the server cannot be reached, or the block was not done in time.
    """
    seconds = monitor_settings().monitor_deadline if deadline is None else deadline
    milliseconds = max(1, math.ceil(seconds * 1000))
    with psycopg.connect(**_parameters(using, milliseconds), row_factory=dict_row) as connection:
        limits = {"milliseconds": str(milliseconds), "read_only": "on" if read_only else "off"}
        # The server's time-out is of no use when its answer never arrives.
        watchdog = threading.Timer(seconds, _cut, args=(connection,))
        watchdog.daemon = True
        watchdog.start()
        try:
            with connection.transaction():
                connection.execute(LIMITS_SQL, limits)
                yield connection
        finally:
            watchdog.cancel()


def _cut(connection: MonitorConnection) -> None:
    """End the connection under a call that waits in another thread: ``shutdown`` wakes it, ``close`` would not."""
    try:
        descriptor = os.dup(connection.fileno())
    except (OSError, psycopg.Error):
        return  # Closed in the meantime.
    with socket.socket(fileno=descriptor) as duplicate:
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def _parameters(using: str, milliseconds: int) -> dict[str, Any]:
    known = connections[using].get_connection_params()
    # Django's cursor class and adapters belong to Django's connections; host, password, service and TLS stay.
    ours = {name: value for name, value in known.items() if name not in ("context", "cursor_factory")}
    return ours | {
        # libpq counts whole seconds and takes less than two as two.
        "connect_timeout": max(2, math.ceil(milliseconds / 1000)),
        "tcp_user_timeout": milliseconds,
        "application_name": APPLICATION,
        "prepare_threshold": None,
    }
