"""Figures of the database, measured; one that cannot be is None, and the others are there all the same."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import psycopg
import structlog
from django.utils import timezone
from psycopg import sql

from dbresilience.monitor import queries
from dbresilience.monitor.conf import monitor_settings
from dbresilience.monitor.connection import MonitorConnection, monitor_connection
from dbresilience.monitor.observed import observed
from dbresilience.monitor.pools import pools
from dbresilience.statements import normalised

Figures = dict[str, Any]
Reader = Callable[[MonitorConnection], Any]

DAY: Final = 86_400
HOUR: Final = 3_600

log = structlog.get_logger(__name__)


def figures_now(*, deep: bool, more: Mapping[str, Reader] | None = None) -> Figures:
    """Measure now, on a connection of the monitor's own.

    Args:
        deep: also what reads the catalogue table by table: sizes, bloat, indexes, statements.
        more: further readers by the name of their figure, on the same connection.

    Returns:
        JSON; ``measured_at``, and each figure or None. ``reachable`` is false when the server did not answer at all.
    """
    readers = {**_LIGHT, **(_DEEP if deep else {}), **(more or {})}
    found: Figures = {"measured_at": _iso(timezone.now()), "reachable": False, "error": None}
    started = time.perf_counter()
    try:
        with monitor_connection() as connection:
            found["connect_ms"] = _milliseconds(started)
            asked = time.perf_counter()
            connection.execute("SELECT 1")
            found["response_ms"] = _milliseconds(asked)
            found["reachable"] = True
            for name, reader in readers.items():
                found[name] = _attempt(connection, name, reader)
    except psycopg.Error as exc:
        found["error"] = exc.sqlstate or type(exc).__name__
        log.warning("monitor_failed", error=found["error"])
    return dict.fromkeys(("connect_ms", "response_ms", *readers)) | found


def _attempt(connection: MonitorConnection, name: str, reader: Reader) -> Any:
    """One figure, in a savepoint of its own: a right that is missing or a lock that is held costs this one alone."""
    try:
        with connection.transaction():
            return plain(reader(connection))
    except psycopg.Error as exc:
        if connection.closed:
            raise
        log.info("figure_unavailable", figure=name, sqlstate=exc.sqlstate)
        return None


def _rows(connection: MonitorConnection, query: str, **values: Any) -> list[dict[str, Any]]:
    return connection.execute(query, values).fetchall()


def _server(connection: MonitorConnection) -> Figures:
    return _rows(connection, queries.SERVER_SQL)[0]


def _connections(connection: MonitorConnection) -> Figures:
    rows = _rows(connection, queries.CONNECTIONS_SQL)
    return {
        "total": sum(row["count"] for row in rows),
        "by_state": {row["state"]: row["count"] for row in rows},
        "waiting_for_locks": sum(row["waiting_for_locks"] for row in rows),
    }


def _database(connection: MonitorConnection) -> Figures:
    return _rows(connection, queries.DATABASE_SQL)[0]


def _long_transactions(connection: MonitorConnection) -> list[Figures]:
    rows = _rows(connection, queries.LONG_TRANSACTIONS_SQL, seconds=monitor_settings().long_transaction_seconds)
    return [row | {"statement": normalised(row["statement"] or "")} for row in rows]


def blocked_sessions(connection: MonitorConnection) -> list[Figures]:
    """Sessions that wait for a lock, longest first, with whom they wait for."""
    return [
        row | {key: normalised(row[key] or "") for key in ("statement", "blocking_statement")}
        for row in _rows(connection, queries.BLOCKED_SQL)
    ]


def _server_deadlocks(connection: MonitorConnection) -> Figures | None:
    now = plain(_database(connection))
    before = _rows(connection, queries.DEADLOCKS_BEFORE_SQL, seconds=DAY, stats_reset=now["stats_reset"])
    since = before[0]["minute"] if before else None
    return {
        "since_reset": now["deadlocks"],
        "last_24h": now["deadlocks"] - before[0]["deadlocks"] if before else None,
        "counted_from": since,
    }


def _statements(connection: MonitorConnection) -> list[Figures] | None:
    installed = _rows(connection, queries.HAS_STATEMENTS_SQL)
    if not installed:
        return None
    view = sql.Identifier(installed[0]["schema"], "pg_stat_statements")
    rows = connection.execute(sql.SQL(queries.STATEMENTS_SQL).format(view=view)).fetchall()
    return [row | {"statement": normalised(row["statement"])} for row in rows]


def plain(value: Any) -> Any:
    """The value as JSON knows it: instants become text."""
    match value:
        case dt.datetime():
            return _iso(value)
        case Mapping():
            return {key: plain(element) for key, element in value.items()}
        case list() | tuple():
            return [plain(element) for element in value]
        case _:
            return value


def _iso(instant: dt.datetime) -> str:
    return instant.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(since: float) -> float:
    return round((time.perf_counter() - since) * 1000, 2)


def _listed(query: str) -> Callable[[MonitorConnection], Sequence[Figures]]:
    return lambda connection: _rows(connection, query)


_LIGHT: Final[dict[str, Reader]] = {
    "server": _server,
    "connections": _connections,
    "database": _database,
    "transaction_ids": lambda connection: _rows(connection, queries.XID_SQL)[0],
    "replication_slots": _listed(queries.SLOTS_SQL),
    "long_transactions": _long_transactions,
    "blocked_sessions": blocked_sessions,
    "server_deadlocks": _server_deadlocks,
    "pools": pools,
    "last_hour": lambda connection: observed(connection, HOUR),
    "last_24h": lambda connection: observed(connection, DAY),
}
_DEEP: Final[dict[str, Reader]] = {
    "applications": _listed(queries.APPLICATIONS_SQL),
    "tables": _listed(queries.TABLES_SQL),
    "unused_indexes": _listed(queries.UNUSED_INDEXES_SQL),
    "missing_indexes": _listed(queries.MISSING_INDEXES_SQL),
    "statements": _statements,
    "violations": lambda connection: _rows(connection, queries.VIOLATIONS_SQL, seconds=DAY),
}
