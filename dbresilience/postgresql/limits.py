"""What gives every wait of a connection an end: parameters that it is made with, and the client's own patience."""

from __future__ import annotations

from typing import Any, Final

from django.db.backends.postgresql import base as django_base

from dbresilience.conf import PoolSettings, pool_settings
from dbresilience.observations.statements import observed_from
from dbresilience.postgresql.connection import Connection
from dbresilience.postgresql.cursors import Cursor, ServerBindingCursor
from dbresilience.work import is_serving_requests, process_role

GRACE: Final = 5.0
"""Seconds by which the client's patience is longer than the server's time-out, which ends a statement more gently."""

_CURSORS: Final[dict[Any, Any]] = {
    django_base.Cursor: Cursor,
    django_base.ServerBindingCursor: ServerBindingCursor,
}


def limits_of(config: PoolSettings, options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of a connection that give every wait an end: defaults, and what is added to the server's options."""
    defaults = {
        "connect_timeout": config.connect_timeout,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        # Who it is, in pg_stat_activity.
        "fallback_application_name": process_role(),
    }
    # PgBouncer refuses such options, and a session's settings would be somebody else's a moment later: there the
    # client's patience alone ends a statement.
    if config.pgbouncer:
        return defaults, {}
    limits = {
        "statement_timeout": config.command_timeout,
        # A person or a program waits for the answer, and a thread with it. Relays, tasks and commands may wait.
        "lock_timeout": config.lock_timeout if is_serving_requests() else 0,
    }
    # What the deployment set itself stays.
    ours = [f"-c {name}={round(limit * 1000)}" for name, limit in limits.items() if limit and name not in options]
    return defaults, {"options": " ".join([options, *ours]).strip()} if ours else {}


def connection_prepare(connection: Connection) -> None:
    """Give a new connection the client's patience, and cursors that are observed."""
    limit = pool_settings().command_timeout
    connection.patience = limit + GRACE if limit else None
    connection.observed_factory = _CURSORS.get(connection.cursor_factory)
    connection.slow_from = observed_from()
