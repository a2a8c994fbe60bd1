"""The console's page of the database."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import psycopg
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from dbresilience.monitor.diagnostics import database_diagnostics
from dbresilience.monitor.health import health_document, measured_now
from operations.audit import actor_of, audit_record
from operations.database.history import charts
from operations.database.views import DIAGNOSE
from operations.overview import Figure
from operations.page_values import NOTHING, moment
from operations.scopes import Scope, permission_codename

RANGES: Final = {"1h": 1, "24h": 24, "7d": 168}

_TONES: Final = {"healthy": "good", "degraded": "warn", "unhealthy": "bad"}


@never_cache
def database_page(request: HttpRequest) -> HttpResponse:
    """What the monitor measures, now and over time; with POST also its diagnostics, which are audited."""
    _require(request, Scope.OPERATIONS_READ)
    diagnosis: dict[str, Any] | None = None
    if request.method == "POST":
        if not request.user.has_perm(DIAGNOSE):
            raise PermissionDenied
        diagnosis = database_diagnostics()
        audit_record(actor=actor_of(request), action="database.diagnosed", detail={"status": diagnosis["status"]})
        figures, deadlocks = diagnosis["figures"], diagnosis["deadlocks"]
    elif request.method in ("GET", "HEAD"):
        figures, deadlocks = measured_now(deep=True)
    else:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    chosen = request.GET.get("range", "")
    hours = RANGES.get(chosen, 24)
    health = health_document(figures, deadlocks)
    context = {
        **admin.site.each_context(request),
        "title": "Database",
        "health": health,
        "tone": _TONES[health["summary"]["status"]],
        "tiles": tiles_of(health),
        "figures": figures,
        "deadlocks": deadlocks,
        "diagnosis": diagnosis,
        "charts": _charts(hours),
        "measured_at": _moment(figures["measured_at"]),
        "tables": [{**row, "vacuumed": _moment(row["vacuumed_at"], "never")} for row in figures.get("tables") or ()],
        "ranges": [(name, name == chosen or (not chosen and name == "24h")) for name in RANGES],
        "may_diagnose": request.user.has_perm(DIAGNOSE),
    }
    return render(request, "operations/database.html", context)


def tiles_of(health: dict[str, Any]) -> list[Figure]:
    """The figures at the head of the page."""
    pool, performance, reliability = health["connection_pool"], health["performance"], health["reliability"]
    raised = {alert["code"]: "bad" if alert["level"] == "critical" else "warn" for alert in health["alerts"]}

    def figure(label: str, value: Any, unit: str = "", *codes: str) -> Figure:
        tone = next((raised[code] for code in codes if code in raised), "plain")
        text = "not measured" if value is None else f"{value:,}{unit}" if isinstance(value, int | float) else str(value)
        return Figure(label=label, value=text, tone="plain" if value is None else tone)  # type: ignore[arg-type]

    recovered = reliability["recovery_success_rate"]
    hits = performance["cache_hit_rate"]
    return [
        figure("pool in use", pool["utilization_percent"], " %", "pool_near_exhaustion"),
        figure(
            "server connections",
            _of(pool["server_connections"], pool["server_max_connections"]),
            "",
            "connections_near_limit",
        ),
        figure("statement, average 24 h", performance["avg_query_time_ms"], " ms"),
        figure("slow statements, 24 h", performance["slow_queries_24h"], "", "slow_statements"),
        figure("errors, last hour", performance["errors_last_hour"], "", "many_errors"),
        figure("time-outs, last hour", reliability["timeouts_last_hour"], "", "repeated_timeouts"),
        figure("deadlocks, 24 h", reliability["deadlocks_24h"], "", "deadlocks"),
        figure(
            "retries that came through", None if recovered is None else round(recovered * 100, 1), " %", "retries_fail"
        ),
        figure("sessions blocked", reliability["blocked_sessions"], "", "sessions_blocked"),
        figure("long transactions", reliability["long_transactions"], "", "long_transactions"),
        figure("found in memory", None if hits is None else round(hits * 100, 1), " %", "cache_misses"),
        figure("answers in", performance["response_time_ms"], " ms"),
    ]


def _of(part: int | None, whole: int | None) -> str | None:
    return None if part is None or whole is None else f"{part} of {whole}"


def _charts(hours: int) -> list[Any] | None:
    try:
        return charts(hours)
    except psycopg.Error:
        # The page still says that the database is away.
        return None


def _moment(instant: str | None, otherwise: str = NOTHING) -> str:
    """An instant of a document as the console writes it everywhere."""
    return moment(dt.datetime.fromisoformat(instant) if instant else None, otherwise)


def _require(request: HttpRequest, scope: Scope) -> None:
    if not _may(request, scope):
        raise PermissionDenied


def _may(request: HttpRequest, scope: Scope) -> bool:
    return request.user.has_perm(f"operations.{permission_codename(scope.value)}")
