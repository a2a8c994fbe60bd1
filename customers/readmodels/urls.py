"""Addresses of the read models; they stand before those of single customers."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, path

from customers.readmodels.views import ActivityView, DirectoryView

_VIEWS: dict[str, Any] = {"directory": DirectoryView, "activity": ActivityView}


def _paths(prefix: str, *, described: bool) -> list[URLPattern]:
    """Each address with and without its trailing slash; one form of each is in the API's description."""
    found = []
    for name, view in _VIEWS.items():
        shown: dict[str, Any] = {} if described else {"schema": None}
        found += [
            path(f"{prefix}/{name}", view.as_view(**shown), name=f"customers-{name}" if described else None),
            path(f"{prefix}/{name}/", view.as_view(schema=None)),
        ]
    return found


urlpatterns = [*_paths("api/v1/customers", described=True), *_paths("customers", described=False)]
