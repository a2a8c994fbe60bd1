"""Settings of what is observed, and from where on it is called bad; each is a setting or an environment variable."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from django.core.exceptions import ImproperlyConfigured

from dbresilience.typed_settings import number


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """How the database is watched.

    Attributes:
        monitor_deadline: seconds that the monitor waits for the server at most, in all (``DB_MONITOR_DEADLINE``).
        monitor_keep_days: days that samples, counts and deadlocks are kept (``DB_MONITOR_KEEP_DAYS``).
        statistics_interval: seconds between two writings of what a process observed; with 0 it writes only when asked
            to (``DB_STATISTICS_INTERVAL``).
        slow_query_ms: milliseconds from which on a statement is slow (``DB_SLOW_QUERY_MS``).
        long_transaction_seconds: seconds from which on a transaction is long (``DB_LONG_TRANSACTION_SECONDS``).
        alert_pool_percent: share of a pool in use that is too much (``DB_ALERT_POOL_PERCENT``).
        alert_connections_percent: share of ``max_connections`` that is too much (``DB_ALERT_CONNECTIONS_PERCENT``).
        alert_cache_hit_percent: less than this share of blocks found in memory is too little
            (``DB_ALERT_CACHE_HIT_PERCENT``).
        alert_errors_per_hour: errors in an hour that are too many (``DB_ALERT_ERRORS_PER_HOUR``).
        alert_timeouts_per_hour: time-outs in an hour that are too many (``DB_ALERT_TIMEOUTS_PER_HOUR``).
        alert_recovery_percent: less than this share of retried transactions coming through is too little
            (``DB_ALERT_RECOVERY_PERCENT``).
        alert_slow_queries: slow statements in 24 h that are too many (``DB_ALERT_SLOW_QUERIES``).
        alert_xid_age: transactions since the oldest unfrozen row that are too many (``DB_ALERT_XID_AGE``).
        alert_slot_megabytes: WAL that a replication slot may hold back (``DB_ALERT_SLOT_MEGABYTES``).
        alert_dead_rows_percent: share of dead rows in a table that is too much (``DB_ALERT_DEAD_ROWS_PERCENT``).
        deadlocks_medium: deadlocks in 24 h from which on their severity is medium (``DB_DEADLOCKS_MEDIUM``).
        deadlocks_high: the same for high (``DB_DEADLOCKS_HIGH``).
        deadlocks_critical: the same for critical (``DB_DEADLOCKS_CRITICAL``).
    """

    monitor_deadline: float
    monitor_keep_days: float
    statistics_interval: float
    slow_query_ms: float
    long_transaction_seconds: float
    alert_pool_percent: float
    alert_connections_percent: float
    alert_cache_hit_percent: float
    alert_errors_per_hour: float
    alert_timeouts_per_hour: float
    alert_recovery_percent: float
    alert_slow_queries: float
    alert_xid_age: float
    alert_slot_megabytes: float
    alert_dead_rows_percent: float
    deadlocks_medium: float
    deadlocks_high: float
    deadlocks_critical: float


# Default, least and greatest value of each.
_RANGES: Final[dict[str, tuple[float, float, float]]] = {
    "monitor_deadline": (5, 0.1, 60),
    "monitor_keep_days": (7, 1, 366),
    # Other processes take one that did not report for a minute for gone.
    "statistics_interval": (5, 0, 30),
    "slow_query_ms": (500, 1, 3_600_000),
    "long_transaction_seconds": (300, 1, 86_400),
    "alert_pool_percent": (80, 1, 100),
    "alert_connections_percent": (80, 1, 100),
    "alert_cache_hit_percent": (90, 0, 100),
    "alert_errors_per_hour": (60, 1, 10_000_000),
    "alert_timeouts_per_hour": (5, 1, 10_000_000),
    "alert_recovery_percent": (90, 0, 100),
    "alert_slow_queries": (1000, 1, 10_000_000),
    "alert_xid_age": (500_000_000, 1_000_000, 2_000_000_000),
    "alert_slot_megabytes": (1024, 1, 100_000_000),
    "alert_dead_rows_percent": (20, 1, 100),
    "deadlocks_medium": (5, 1, 10_000_000),
    "deadlocks_high": (20, 1, 10_000_000),
    "deadlocks_critical": (100, 1, 10_000_000),
}


def monitor_settings() -> MonitorSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number, out of its range, or contradicts another; the message names it.
    """
    found = MonitorSettings(
        **{field.name: number(f"DB_{field.name.upper()}", *_RANGES[field.name]) for field in fields(MonitorSettings)}
    )
    if not found.deadlocks_medium <= found.deadlocks_high <= found.deadlocks_critical:
        raise ImproperlyConfigured(
            "DB_DEADLOCKS_MEDIUM, DB_DEADLOCKS_HIGH and DB_DEADLOCKS_CRITICAL must not decrease."
        )
    return found
