"""Addresses of the operators' view of read models."""

from __future__ import annotations

from typing import Any, Final

from django.urls import URLPattern, path

from projections.api import views

HEALTH: Final = "api/v1/health"
ADMIN: Final = "api/v1/admin/projections"


def _paths(place: str, view: Any, name: str) -> list[URLPattern]:
    """Without a trailing slash, which is the form in the API's description, and with it."""
    return [path(place, view.as_view(), name=name), path(f"{place}/", view.as_view(schema=None))]


urlpatterns: list[URLPattern] = [
    *_paths(HEALTH, views.SystemHealthView, "system-health"),
    *_paths(f"{HEALTH}/projections", views.HealthView, "projections-health"),
    *_paths(f"{HEALTH}/projections/<str:name>", views.ProjectionHealthView, "projection-health"),
    *_paths(f"{HEALTH}/projections/<str:name>/checkpoint", views.CheckpointView, "projection-checkpoint"),
    *_paths(f"{HEALTH}/projections/<str:name>/failures", views.FailureListView, "projection-failures"),
    *_paths(f"{ADMIN}/status", views.StatusView, "projections-status"),
    *_paths(f"{ADMIN}/failures/<str:failure_id>/resolve", views.ResolveView, "projection-resolve"),
    *_paths(f"{ADMIN}/<str:name>/replay", views.ReplayView, "projection-replay"),
    *_paths(f"{ADMIN}/<str:name>/reset", views.ResetView, "projection-reset"),
]
