"""Addresses of the operators' view of the database; they stand before the console's."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.urls import URLPattern, path

from operations.database import views
from operations.database.page import database_page

_VIEWS: dict[str, Any] = {
    "health": views.HealthView,
    "metrics": views.MetricsView,
    "deadlocks": views.DeadlocksView,
    "connection-pool": views.ConnectionPoolView,
    "connections": views.ConnectionsView,
    "diagnostics": views.DiagnosticsView,
}


def _paths(prefix: str, *, described: bool) -> list[URLPattern]:
    """Each address with and without its trailing slash; one form of each is in the API's description."""
    found = []
    for name, view in _VIEWS.items():
        shown: dict[str, Any] = {} if described else {"schema": None}
        found += [
            path(f"{prefix}/{name}", view.as_view(**shown), name=f"database-{name}" if described else None),
            path(f"{prefix}/{name}/", view.as_view(schema=None)),
        ]
    return found


urlpatterns: list[URLPattern] = [
    *_paths("api/v1/admin/database", described=True),
    *_paths("admin/database", described=False),
    *(
        path(f"{prefix}admin/health{slash}", views.SystemHealthView.as_view())
        for prefix in ("", "api/v1/")
        for slash in ("", "/")
    ),
    path("admin/database/", admin.site.admin_view(database_page), name="console-database"),
    path("admin/database", admin.site.admin_view(database_page)),
]
