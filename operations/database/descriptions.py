"""How the API's description (OpenAPI) shows the views of the database."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

_TAGS: Final = ["database"]
_PROBLEMS: Final[dict[int, Any]] = {
    401: OpenApiResponse(description="No valid credentials."),
    403: OpenApiResponse(description="The credentials do not reach so far."),
    503: OpenApiResponse(description="Too busy, or the database does not answer; Retry-After says when to ask again."),
}
_HEALTH: Final = OpenApiExample(
    "A healthy database",
    {
        "summary": {"status": "healthy", "timestamp": "2026-03-01T12:00:00.000Z", "reachable": True, "alerts": 0},
        "connection_pool": {
            "total_connections": 20,
            "active_connections": 8,
            "utilization_percent": 16.0,
            "overflow_connections": 0,
        },
        "performance": {"avg_query_time_ms": 1.2, "slow_queries_24h": 3, "error_rate_per_hour": 0.1},
        "reliability": {"deadlocks_24h": 0, "deadlock_severity": "low", "recovery_success_rate": None},
        "recommendations": [],
        "alerts": [],
    },
    response_only=True,
)


def _read(operation: str, summary: str, description: str, **more: Any) -> Any:
    return extend_schema_view(
        get=extend_schema(
            operation_id=operation,
            summary=summary,
            description=description,
            tags=_TAGS,
            responses={200: OpenApiResponse(OpenApiTypes.OBJECT), **_PROBLEMS},
            **more,
        )
    )


health = _read(
    "database_health",
    "Health of the database",
    "Measured now; a figure that could not be measured is null. Alerts follow from thresholds that are settings.",
    examples=[_HEALTH],
)
metrics = _read(
    "database_metrics",
    "Every figure of the database",
    "Connections, locks, transactions, sizes, bloat, indexes, statements, replication, pools, errors. Statements are "
    "shown without their values.",
)
deadlocks = _read(
    "database_deadlocks",
    "Deadlocks and what would prevent them",
    "By pair of tables and statements, with frequency, severity and an order in which to lock the tables.",
    parameters=[OpenApiParameter("hours", int, description="how far back to look, 1 to 168; 24 by default")],
)
connection_pool = _read(
    "database_connection_pool",
    "Connection pools",
    "Of every process that reported within the last minute, and in all; null when no process has a pool.",
)
connections = _read(
    "database_connections",
    "Connections",
    "The pools in short, and the sessions of the server by state and application.",
)
diagnostics = extend_schema_view(
    post=extend_schema(
        operation_id="database_diagnostics",
        summary="Diagnose the database",
        description="Measures everything and answers each question: ok, warning, critical or unknown. Audited.",
        tags=_TAGS,
        request=None,
        responses={200: OpenApiResponse(OpenApiTypes.OBJECT), **_PROBLEMS},
    )
)
