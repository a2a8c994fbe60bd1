"""System checks of what would hurt only later: under load, in an outage, behind a pooler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connections

from dbresilience.conf import PoolSettings, RetrySettings, pool_options, pool_settings, retry_settings

OURS: Final = "dbresilience.postgresql"

# Serves pool_sum_check: how many sessions the server admits for those who are not its masters.
CONNECTIONS_SQL: Final = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
"""
BACKEND_SQL: Final = "SELECT pg_backend_pid()"


def checks_register() -> None:
    """Have Django run them; those that ask the server only when a command names databases."""
    register(settings_check, Tags.compatibility)
    register(pool_sum_check, Tags.database)
    register(pooler_check, Tags.database)


def settings_check(app_configs: Sequence[AppConfig] | None = None, **_: Any) -> list[CheckMessage]:
    """What the settings say, without asking the server."""
    try:
        pool, retry = pool_settings(), retry_settings()
    except ImproperlyConfigured as exc:
        return [_senseless(exc)]
    return [*_order_of_times(pool, retry), *_databases(pool)]


def pool_sum_check(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Whether all processes together may ask for more sessions than the server admits."""
    config = pool_settings()
    wanted = (config.size + config.max_overflow) * config.processes
    found: list[CheckMessage] = []
    for alias in _ours(databases or ()):
        admitted = _ask(alias, CONNECTIONS_SQL)
        if admitted is not None and wanted > admitted and not config.pgbouncer:
            found.append(
                Warning(
                    f"{config.processes} processes with {config.size + config.max_overflow} connections each make "
                    f'{wanted}, but "{alias}" admits {admitted}.',
                    hint="Lower DB_POOL_SIZE and DB_MAX_OVERFLOW, raise max_connections, or put PgBouncer between "
                    "(DB_PGBOUNCER). DB_PROCESSES says how many processes there are.",
                    id="dbresilience.W001",
                )
            )
    return found


def pooler_check(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Whether a pooler stands between that nobody told us of: the session is not with whom we connected to."""
    found: list[CheckMessage] = []
    if pool_settings().pgbouncer:
        return found
    for alias in _ours(databases or ()):
        backend = _ask(alias, BACKEND_SQL)
        session = connections[alias].connection
        if backend is not None and session is not None and backend != session.info.backend_pid:
            found.append(
                Warning(
                    f'A connection pooler stands before "{alias}".',
                    hint="Set DB_PGBOUNCER=true. In transaction mode session settings, session-level advisory locks, "
                    "LISTEN and server-side cursors outside of transactions belong to whoever comes next.",
                    id="dbresilience.W002",
                )
            )
    return found


def _order_of_times(pool: PoolSettings, retry: RetrySettings) -> Iterator[CheckMessage]:
    rules = (
        (
            retry.base_delay > retry.max_delay,
            f"DB_RETRY_BASE_DELAY ({retry.base_delay:g} s) is longer than DB_RETRY_MAX_DELAY ({retry.max_delay:g} s).",
            "The first wait would already be cut; lower the base.",
        ),
        (
            pool.connect_timeout > pool.timeout,
            f"DB_CONNECT_TIMEOUT ({pool.connect_timeout} s) is longer than DB_POOL_TIMEOUT ({pool.timeout:g} s).",
            "Callers would give up before a slow connection could be had; raise DB_POOL_TIMEOUT.",
        ),
        (
            pool.check_timeout >= pool.timeout,
            f"DB_CHECK_TIMEOUT ({pool.check_timeout:g} s) is no shorter than DB_POOL_TIMEOUT ({pool.timeout:g} s).",
            "One silent connection would use up the whole wait; two seconds are plenty.",
        ),
        (
            bool(pool.session_timeout) and (not pool.command_timeout or pool.command_timeout > pool.session_timeout),
            f"DB_COMMAND_TIMEOUT ({pool.command_timeout:g} s) is over DB_SESSION_TIMEOUT ({pool.session_timeout:g}).",
            "A session would be called too old while a statement runs (0 is for ever); lower DB_COMMAND_TIMEOUT.",
        ),
        (
            bool(pool.leak_reclaim) and pool.command_timeout > pool.leak_reclaim,
            f"DB_LEAK_RECLAIM ({pool.leak_reclaim:g} s) is under DB_COMMAND_TIMEOUT ({pool.command_timeout:g} s).",
            "Connections would be taken from statements that are still allowed to run; raise DB_LEAK_RECLAIM.",
        ),
        (
            bool(pool.leak_reclaim) and pool.leak_reclaim < pool.leak_warning,
            f"DB_LEAK_RECLAIM ({pool.leak_reclaim:g} s) is shorter than DB_LEAK_WARNING ({pool.leak_warning:g} s).",
            "A connection would be taken away before anybody was warned; raise DB_LEAK_RECLAIM.",
        ),
    )
    for is_wrong, message, hint in rules:
        if is_wrong:
            yield Warning(message, hint=hint, id="dbresilience.W003")


def _databases(pool: PoolSettings) -> Iterator[CheckMessage]:
    for alias in _ours(connections):
        known = connections[alias].settings_dict
        options = known.get("OPTIONS", {})
        pooled = options.get("pool", True)
        if known.get("ATOMIC_REQUESTS"):
            yield Warning(
                f'ATOMIC_REQUESTS of "{alias}" makes each view a transaction, inside which nothing is ever retried.',
                hint="Turn it off and call run_in_transaction() where a transaction is needed.",
                id="dbresilience.W004",
            )
        if pooled and known.get("CONN_MAX_AGE", 0) != 0:
            yield Error(
                f'CONN_MAX_AGE of "{alias}" keeps connections per thread, and the pool keeps them per process.',
                hint="Set CONN_MAX_AGE to 0; DB_POOL_RECYCLE says how old a connection gets.",
                id="dbresilience.E002",
            )
        try:
            pool_options(alias, pooled)
        except ImproperlyConfigured as exc:
            yield _senseless(exc)
        if options.get("pool") and apps.is_installed("django_celery_beat"):
            yield Warning(
                f'OPTIONS["pool"] of "{alias}" has Celery close the pool around every task.',
                hint="Leave it out: the pool is on without it, and the DB_ settings size it.",
                id="dbresilience.W005",
            )
        if pool.pgbouncer:
            yield from _behind_pgbouncer(alias, known)


def _senseless(exc: ImproperlyConfigured) -> CheckMessage:
    return Error(str(exc), hint="Correct the setting, or leave it out for its default.", id="dbresilience.E001")


def _behind_pgbouncer(alias: str, known: dict[str, Any]) -> Iterator[CheckMessage]:
    options = known.get("OPTIONS", {})
    if not known.get("DISABLE_SERVER_SIDE_CURSORS"):
        yield Warning(
            f'"{alias}" uses server-side cursors, which outlive their transaction, behind PgBouncer.',
            hint="Set DISABLE_SERVER_SIDE_CURSORS to True.",
            id="dbresilience.W006",
        )
    unsafe = [name for name in ("options", "isolation_level", "assume_role") if options.get(name)]
    if options.get("prepare_threshold") is not None:
        unsafe.append("prepare_threshold")
    for name in unsafe:
        yield Warning(
            f'OPTIONS["{name}"] of "{alias}" sets what belongs to a session, behind PgBouncer.',
            hint="In transaction mode the next transaction may run in another session: set it for the role or the "
            "database (ALTER ROLE … SET), or within each transaction.",
            id="dbresilience.W007",
        )


def _ours(aliases: Iterable[str]) -> list[str]:
    return [alias for alias in aliases if connections.settings[alias]["ENGINE"] == OURS]


def _ask(alias: str, sql: str) -> int | None:
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)
            return int(cursor.fetchone()[0])
    except DatabaseError:
        # That the server is away is for others to say.
        return None


__all__ = ["checks_register", "pool_sum_check", "pooler_check", "settings_check"]
