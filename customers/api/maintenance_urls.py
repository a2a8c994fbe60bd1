"""Addresses of maintenance; they stand before those of one customer, whose id could be read into them."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, path

from customers.api import drift_views
from customers.api import maintenance_views as views

_VIEWS: dict[str, Any] = {
    "retry-failed-syncs": views.RetryFailedSyncsView,
    "cleanup-orphaned": views.CleanupOrphanedView,
    "data-consistency/validate": views.ValidateView,
    "data-consistency/fix": views.FixView,
    "integration-health/<str:integration_name>": views.IntegrationHealthView,
    "drift": drift_views.DriftListView,
    "drift/<str:drift_id>": drift_views.DriftDetailView,
    "drift/<str:drift_id>/accept": drift_views.AcceptView,
    "drift/<str:drift_id>/decline": drift_views.DeclineView,
}


def maintenance_paths(prefix: str, *, described: bool) -> list[URLPattern]:
    """Each address with and without its trailing slash; one form of each is in the API's description."""
    shown: dict[str, Any] = {} if described else {"schema": None}
    suffix = "" if described else "-unversioned"
    return [
        pattern
        for name, view in _VIEWS.items()
        for pattern in (
            path(f"{prefix}/{name}/", view.as_view(**shown), name=f"{_name(name)}{suffix}"),
            path(f"{prefix}/{name}", view.as_view(schema=None)),
        )
    ]


def _name(path: str) -> str:
    return "-".join(part for part in path.split("/") if not part.startswith("<"))
