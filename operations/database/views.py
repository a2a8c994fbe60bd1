"""The database over HTTP, for operators."""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dbresilience.conf import pool_settings
from dbresilience.monitor.diagnostics import database_diagnostics
from dbresilience.monitor.figures import figures_now
from dbresilience.monitor.health import database_health, deadlocks_now
from operations.audit import actor_of, audit_record
from operations.database import descriptions
from operations.errors import ProblemError
from operations.health import system_health
from operations.idempotency.decorators import idempotent
from operations.permissions import require
from operations.scopes import Scope
from operations.serializers import StrictSerializer, query_values

DIAGNOSE: Final = "dbresilience.diagnose_sample"
_UNCACHED: Final = {"Cache-Control": "no-store"}


class DatabaseUnreachable(ProblemError):
    """The database did not answer the monitor. Try again."""

    status = 503
    code = "database_unavailable"
    title = "Database unavailable"


class Window(StrictSerializer):
    """How far back to look."""

    hours = serializers.IntegerField(min_value=1, max_value=168, default=24)


class DatabaseView(APIView):
    """Base of the views of the database."""

    required_scopes = {"read": Scope.OPERATIONS_READ, "write": Scope.OPERATIONS_WRITE}


@descriptions.health
class HealthView(DatabaseView):
    """Summary, pool, performance, reliability, recommendations and alerts."""

    def get(self, request: Request) -> Response:
        return Response(database_health(), headers=_UNCACHED)


@descriptions.metrics
class MetricsView(DatabaseView):
    """Every figure that the monitor has."""

    def get(self, request: Request) -> Response:
        return Response(figures_now(deep=True), headers=_UNCACHED)


@descriptions.deadlocks
class DeadlocksView(DatabaseView):
    """Deadlocks by tables and statements, with what would prevent them."""

    def get(self, request: Request) -> Response:
        window = Window(data=query_values(request))
        window.is_valid(raise_exception=True)
        found = deadlocks_now(3600 * window.validated_data["hours"])
        if found is None:
            raise DatabaseUnreachable
        return Response(found, headers=_UNCACHED)


@descriptions.connection_pool
class ConnectionPoolView(DatabaseView):
    """The pools of all processes, and the settings they have."""

    def get(self, request: Request) -> Response:
        figures = _reachable(figures_now(deep=False))
        config = pool_settings()
        return Response(
            {
                "timestamp": figures["measured_at"],
                "pools": figures["pools"],
                "settings": {
                    "size": config.size,
                    "max_overflow": config.max_overflow,
                    "timeout": config.timeout,
                    "recycle": config.recycle,
                },
            },
            headers=_UNCACHED,
        )


@descriptions.connections
class ConnectionsView(DatabaseView):
    """The pool in short, and the sessions of the server: by state, by application, long ones and blocked ones."""

    def get(self, request: Request) -> Response:
        figures = _reachable(figures_now(deep=True))
        total: dict[str, Any] = (figures["pools"] or {}).get("total", {})
        names = ("connections", "applications", "long_transactions", "blocked_sessions", "server")
        return Response(
            {
                "status": "healthy" if figures["connections"] is not None else "unknown",
                "connection_pool": {
                    "size": total.get("size"),
                    "checked_in": total.get("idle"),
                    "checked_out": total.get("borrowed"),
                    "overflow": total.get("overflow"),
                    "total_connections": total.get("open"),
                    "waiting": total.get("waiting"),
                    "utilization_percent": total.get("utilisation_percent"),
                },
                "response_times": {"connect_ms": figures["connect_ms"], "query_ms": figures["response_ms"]},
                "error_rates": {
                    "last_hour": (figures["last_hour"] or {}).get("errors"),
                    "per_hour_24h": (figures["last_24h"] or {}).get("errors_per_hour"),
                },
                "last_check": figures["measured_at"],
                **{name: figures[name] for name in names},
            },
            headers=_UNCACHED,
        )


@descriptions.diagnostics
class DiagnosticsView(DatabaseView):
    """Looks more closely, and answers each question."""

    @idempotent(outside_for=60)
    def post(self, request: Request) -> Response:
        require(request, DIAGNOSE)
        Nothing(data=request.data or {}).is_valid(raise_exception=True)
        found = database_diagnostics()
        audit_record(actor=actor_of(request), action="database.diagnosed", detail={"status": found["status"]})
        return Response(found, headers=_UNCACHED)


class SystemHealthView(DatabaseView):
    """Everything that the service needs, component by component."""

    schema = None

    def get(self, request: Request) -> Response:
        return Response(system_health(), headers=_UNCACHED)


class Nothing(StrictSerializer):
    """A body without any field."""


def _reachable(figures: dict[str, Any]) -> dict[str, Any]:
    if not figures["reachable"]:
        raise DatabaseUnreachable
    return figures
