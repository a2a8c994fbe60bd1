"""Settings of this app, with their defaults; each is a Django setting or an environment variable of the same name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from dbresilience.typed_settings import as_number, as_whole, number, truth, whole

_WHOLE: Final = {"min_size", "max_size", "max_waiting", "num_workers"}
_SECONDS: Final = {"timeout", "max_lifetime", "max_idle", "reconnect_timeout"}


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How often and after which waits a transaction is run again.

    Attributes:
        max_retries: runs after the first one when the connection was lost before the commit (``DB_MAX_RETRIES``).
        deadlock_retries: runs after the first one after a deadlock or a serialization failure
            (``DB_DEADLOCK_RETRY_COUNT``); larger, since these are expected and short.
        base_delay: seconds; the upper bound of the first wait (``DB_RETRY_BASE_DELAY``).
        max_delay: seconds; no wait is longer (``DB_RETRY_MAX_DELAY``, at most 30).
    """

    max_retries: int
    deadlock_retries: int
    base_delay: float
    max_delay: float


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How many connections one process holds, and for how long it waits for what.

    All times are seconds; 0 turns off what is marked so.

    Attributes:
        size: connections that are kept (``DB_POOL_SIZE``); each opens when it is first needed.
        max_overflow: connections beyond them, closed soon after use (``DB_MAX_OVERFLOW``).
        timeout: longest wait for a free one (``DB_POOL_TIMEOUT``).
        recycle: age at which a returned one is replaced (``DB_POOL_RECYCLE``).
        overflow_idle: how long a connection of the overflow stays unused (``DB_OVERFLOW_IDLE``).
        check_timeout: deadline of the question whether a connection still answers (``DB_CHECK_TIMEOUT``).
        connect_timeout: deadline of connecting (``DB_CONNECT_TIMEOUT``).
        command_timeout: deadline of one statement; not in migrations and maintenance (``DB_COMMAND_TIMEOUT``, 0: off).
        lock_timeout: longest wait for one lock in a process that answers requests (``DB_LOCK_TIMEOUT``, 0: off).
        session_timeout: age at which a session outside of any transaction is exchanged for a fresh one
            (``DB_SESSION_TIMEOUT``, 0: off).
        leak_warning: age from which on a borrowed connection is reported (``DB_LEAK_WARNING``, 0: off).
        leak_reclaim: age at which it is taken away (``DB_LEAK_RECLAIM``, 0: off).
        pgbouncer: whether a PgBouncer in transaction mode stands between (``DB_PGBOUNCER``).
        processes: processes that hold a pool each, for the sum against ``max_connections`` (``DB_PROCESSES``).
    """

    size: int
    max_overflow: int
    timeout: float
    recycle: float
    overflow_idle: float
    check_timeout: float
    connect_timeout: int
    command_timeout: float
    lock_timeout: float
    session_timeout: float
    leak_warning: float
    leak_reclaim: float
    pgbouncer: bool
    processes: int


@dataclass(frozen=True, slots=True)
class LockSettings:
    """How patiently a migration waits for its locks.

    Attributes:
        first: seconds that the first attempt waits for a lock (``DB_MIGRATION_LOCK_TIMEOUT``, 0: for ever, once).
        longest: seconds that no attempt waits longer than (``DB_MIGRATION_LOCK_TIMEOUT_MAX``).
        attempts: how often a migration is begun (``DB_MIGRATION_LOCK_ATTEMPTS``).
    """

    first: float
    longest: float
    attempts: int


def retry_settings() -> RetrySettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    return RetrySettings(
        max_retries=whole("DB_MAX_RETRIES", 3, 0, 100),
        deadlock_retries=whole("DB_DEADLOCK_RETRY_COUNT", 5, 0, 100),
        base_delay=number("DB_RETRY_BASE_DELAY", 0.1, 0.0, 30.0),
        max_delay=number("DB_RETRY_MAX_DELAY", 5.0, 0.0, 30.0),
    )


def pool_settings() -> PoolSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    found = PoolSettings(
        size=whole("DB_POOL_SIZE", 20, 0, 1000),
        max_overflow=whole("DB_MAX_OVERFLOW", 30, 0, 1000),
        timeout=number("DB_POOL_TIMEOUT", 30.0, 0.01, 3600.0),
        recycle=number("DB_POOL_RECYCLE", 3600.0, 1.0, 86_400.0),
        overflow_idle=number("DB_OVERFLOW_IDLE", 10.0, 0.05, 3600.0),
        check_timeout=number("DB_CHECK_TIMEOUT", 2.0, 0.05, 60.0),
        connect_timeout=whole("DB_CONNECT_TIMEOUT", 10, 1, 300),
        command_timeout=number("DB_COMMAND_TIMEOUT", 300.0, 0.0, 86_400.0),
        lock_timeout=number("DB_LOCK_TIMEOUT", 5.0, 0.0, 3600.0),
        session_timeout=number("DB_SESSION_TIMEOUT", 1800.0, 0.0, 86_400.0),
        leak_warning=number("DB_LEAK_WARNING", 60.0, 0.0, 86_400.0),
        leak_reclaim=number("DB_LEAK_RECLAIM", 0.0, 0.0, 86_400.0),
        pgbouncer=truth("DB_PGBOUNCER", default=False),
        processes=whole("DB_PROCESSES", 1, 1, 10_000),
    )
    if found.size + found.max_overflow < 1:
        raise ImproperlyConfigured("DB_POOL_SIZE and DB_MAX_OVERFLOW must not both be 0: nothing could connect.")
    return found


def pool_options(alias: str, given: object) -> dict[str, Any]:
    """What ``OPTIONS["pool"]`` hands to psycopg's pool on top of the settings; nothing when it is True or False.

    Raises:
        ImproperlyConfigured: it is neither one of these nor a dictionary, or a size or time in it is no such thing.
    """
    name = f'DATABASES["{alias}"]["OPTIONS"]["pool"]'
    if isinstance(given, bool) or given is None:
        return {}
    if not isinstance(given, dict):
        raise ImproperlyConfigured(f"{name} must be True, False or a dictionary, not {given!r}.")
    options: dict[str, Any] = dict(given)
    for key in options.keys() & _WHOLE:
        if options[key] is not None:
            options[key] = as_whole(f'{name}["{key}"]', options[key], 0, 10_000)
    for key in options.keys() & _SECONDS:
        options[key] = as_number(f'{name}["{key}"]', options[key], 0.0, 1e9)
    return options


def lock_settings() -> LockSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number, out of its range, or contradicts another; the message names it.
    """
    found = LockSettings(
        first=number("DB_MIGRATION_LOCK_TIMEOUT", 0.1, 0.0, 60.0),
        longest=number("DB_MIGRATION_LOCK_TIMEOUT_MAX", 5.0, 0.001, 600.0),
        attempts=whole("DB_MIGRATION_LOCK_ATTEMPTS", 40, 1, 10_000),
    )
    if found.first > found.longest:
        raise ImproperlyConfigured("DB_MIGRATION_LOCK_TIMEOUT must not exceed DB_MIGRATION_LOCK_TIMEOUT_MAX.")
    return found
