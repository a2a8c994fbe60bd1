"""The health of the database as one document: summary, pool, performance, reliability, recommendations, alerts."""

from __future__ import annotations

from typing import Literal

import psycopg

from dbresilience.deadlocks.statistics import deadlock_statistics
from dbresilience.monitor.alerts import Alert, alert_documents, alerts_of, recommendations_of
from dbresilience.monitor.conf import monitor_settings
from dbresilience.monitor.connection import MonitorConnection, monitor_connection
from dbresilience.monitor.figures import DAY, Figures, figures_now, plain

Status = Literal["healthy", "degraded", "unhealthy"]


def database_health() -> Figures:
    """Measure, and say what it means. Every figure is measured or None."""
    return health_document(*measured_now(deep=False))


def measured_now(*, deep: bool) -> tuple[Figures, Figures | None]:
    """The figures, and the statistics of a day's deadlocks or None, measured on one connection.

    Args:
        deep: as in ``figures_now``.
    """
    figures = figures_now(deep=deep, more={"deadlocks": _deadlocks})
    return figures, figures.pop("deadlocks")


def deadlocks_now(seconds: int) -> Figures | None:
    """Statistics of the deadlocks of the last ``seconds``; None when they cannot be read."""
    try:
        with monitor_connection() as connection:
            return plain(_deadlocks(connection, seconds))  # type: ignore[no-any-return]
    except psycopg.Error:
        return None


def health_document(figures: Figures, deadlocks: Figures | None) -> Figures:
    """The document of these figures."""
    alerts = alerts_of(figures, deadlocks, monitor_settings())
    return {
        "summary": {
            "status": status_of(alerts),
            "timestamp": figures["measured_at"],
            "reachable": figures["reachable"],
            "version": (figures["server"] or {}).get("version"),
            "alerts": len(alerts),
        },
        "connection_pool": _pool(figures),
        "performance": _performance(figures),
        "reliability": _reliability(figures, deadlocks),
        "recommendations": recommendations_of(alerts, deadlocks, figures),
        "alerts": alert_documents(alerts),
    }


def status_of(alerts: list[Alert]) -> Status:
    """unhealthy with a critical alert, degraded with another, else healthy."""
    if any(alert.level == "critical" for alert in alerts):
        return "unhealthy"
    return "degraded" if alerts else "healthy"


def _deadlocks(connection: MonitorConnection, seconds: int = DAY) -> Figures:
    return deadlock_statistics(connection, monitor_settings(), seconds)


def _pool(figures: Figures) -> Figures:
    pools, connections, server = figures["pools"], figures["connections"], figures["server"]
    total = pools["total"] if pools else {}
    return {
        "total_connections": total.get("open"),
        "active_connections": total.get("borrowed"),
        "utilization_percent": total.get("utilisation_percent"),
        "overflow_connections": total.get("overflow"),
        # The names of SQLAlchemy's pool, which dashboards know.
        "size": total.get("size"),
        "checked_in": total.get("idle"),
        "checked_out": total.get("borrowed"),
        "overflow": total.get("overflow"),
        "waiting": total.get("waiting"),
        "busiest_percent": pools["busiest_percent"] if pools else None,
        "wait_ms": pools["wait_ms"] if pools else None,
        "hold_ms": pools["hold_ms"] if pools else None,
        "processes": len(pools["processes"]) if pools else None,
        "database_sessions": connections["total"] if connections else None,
        "server_connections": server["client_connections"] if server else None,
        "server_max_connections": server["max_connections"] if server else None,
    }


def _performance(figures: Figures) -> Figures:
    hour, day, database = figures["last_hour"] or {}, figures["last_24h"] or {}, figures["database"] or {}
    return {
        "avg_query_time_ms": day.get("average_ms"),
        "avg_query_time_ms_1h": hour.get("average_ms"),
        "slow_queries_24h": day.get("slow_statements"),
        "slow_query_threshold_ms": monitor_settings().slow_query_ms,
        "error_rate_per_hour": day.get("errors_per_hour"),
        "errors_last_hour": hour.get("errors"),
        "violations_last_hour": hour.get("violations"),
        "contention_last_hour": hour.get("contention"),
        "response_time_ms": figures["response_ms"],
        "connect_time_ms": figures["connect_ms"],
        "cache_hit_rate": database.get("cache_hit_rate"),
    }


def _reliability(figures: Figures, deadlocks: Figures | None) -> Figures:
    hour, day, on_server = figures["last_hour"] or {}, figures["last_24h"] or {}, figures["server_deadlocks"] or {}
    return {
        "deadlocks_24h": deadlocks["count"] if deadlocks else None,
        "deadlock_severity": deadlocks["severity"] if deadlocks else None,
        "server_deadlocks_24h": on_server.get("last_24h"),
        "recovery_success_rate": day.get("recovery_success_rate"),
        "retries_recovered_24h": day.get("recovered"),
        "retries_given_up_24h": day.get("given_up"),
        "commit_answers_lost_24h": day.get("commits_resolved"),
        "timeouts_last_hour": hour.get("timeouts"),
        "errors_by_sqlstate_24h": day.get("errors_by_sqlstate"),
        "blocked_sessions": _length(figures["blocked_sessions"]),
        "long_transactions": _length(figures["long_transactions"]),
        "transaction_id_age": (figures["transaction_ids"] or {}).get("age"),
    }


def _length(rows: list[Figures] | None) -> int | None:
    return None if rows is None else len(rows)
