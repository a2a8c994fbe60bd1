"""The database's figures for Prometheus, measured when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dbresilience.deadlocks.statistics import deadlock_count
from dbresilience.monitor.figures import figures_now

# Name, what it is, and where among the figures it stands.
_GAUGES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("response_milliseconds", "Time of SELECT 1 on the monitor's connection.", ("response_ms",)),
    ("server_connections", "Client connections of the server.", ("server", "client_connections")),
    ("server_max_connections", "Connections that the server takes.", ("server", "max_connections")),
    ("locks_waited_for", "Sessions that wait for a lock.", ("connections", "waiting_for_locks")),
    (
        "cache_hit_ratio",
        "Share of blocks found in memory since the counters were reset.",
        ("database", "cache_hit_rate"),
    ),
    ("size_bytes", "Size of the database.", ("database", "bytes")),
    ("transaction_id_age", "Age of the oldest unfrozen transaction id.", ("transaction_ids", "age")),
    ("pool_size", "Connections that all pools keep.", ("pools", "total", "size")),
    ("pool_max_overflow", "Connections that all pools may open beyond.", ("pools", "total", "max_overflow")),
    ("pool_open", "Connections of all pools.", ("pools", "total", "open")),
    ("pool_borrowed", "Of them, in use.", ("pools", "total", "borrowed")),
    ("pool_waiting", "Threads that wait for one.", ("pools", "total", "waiting")),
    ("pool_wait_p99_milliseconds", "Time until a connection was had; the worst process.", ("pools", "wait_ms", "p99")),
    ("pool_hold_p99_milliseconds", "Time until it came back; the worst process.", ("pools", "hold_ms", "p99")),
    ("deadlocks_24h", "Deadlocks seen.", ("deadlocks_seen",)),
    ("statement_average_milliseconds", "Average over the last hour.", ("last_hour", "average_ms")),
    ("slow_statements_last_hour", "Statements over the threshold.", ("last_hour", "slow_statements")),
    ("timeouts_last_hour", "Statements, locks and connections that timed out.", ("last_hour", "timeouts")),
    (
        "recovery_success_ratio",
        "Share of retried transactions that came through, 24 h.",
        ("last_24h", "recovery_success_rate"),
    ),
)


class DatabaseCollector(Collector):
    """Live figures; one that cannot be measured is absent, and ``zenskar_database_up`` says whether any can."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: describing by measuring would ask the database while the process starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        figures = figures_now(deep=False, more={"deadlocks_seen": deadlock_count})
        yield GaugeMetricFamily("zenskar_database_up", "Whether the database answers.", value=figures["reachable"])
        for name, text, path in _GAUGES:
            value: Any = figures
            for part in path:
                value = value.get(part) if value is not None else None
            if value is not None:
                yield GaugeMetricFamily(f"zenskar_database_{name}", text, value=value)
        yield from _labelled(figures)


def _labelled(figures: dict[str, Any]) -> Iterator[Metric]:
    if figures["connections"] is not None:
        sessions = GaugeMetricFamily("zenskar_database_sessions", "Sessions of this database.", labels=["state"])
        for state, count in figures["connections"]["by_state"].items():
            sessions.add_metric([state], count)
        yield sessions
    if figures["last_hour"] is not None:
        errors = GaugeMetricFamily("zenskar_database_errors_last_hour", "Errors counted.", labels=["sqlstate"])
        for key, count in figures["last_hour"]["errors_by_sqlstate"].items():
            errors.add_metric([key], count)
        yield errors
    for name, rows in (
        ("long_transactions", figures["long_transactions"]),
        ("blocked_sessions", figures["blocked_sessions"]),
    ):
        if rows is not None:
            yield GaugeMetricFamily(
                f"zenskar_database_{name}", name.replace("_", " ").capitalize() + ".", value=len(rows)
            )
