from __future__ import annotations

from typing import Any, Final

from django.urls import URLPattern, path

from operations.api import life, operations, troubles

PREFIX: Final = "api/v1/admin/operations"
TROUBLES: Final = "api/v1/admin/troubles"
LIFE: Final = "api/v1/admin/life"
_ONE: Final = f"{PREFIX}/<str:operation_id>"


def _paths(place: str, view: Any, name: str) -> list[URLPattern]:
    """With its trailing slash, which is the form in the API's description, and without."""
    return [path(f"{place}/", view.as_view(), name=name), path(place, view.as_view(schema=None))]


urlpatterns: list[URLPattern] = [
    *_paths(PREFIX, operations.OperationListView, "operations"),
    *_paths(f"{PREFIX}/kinds", operations.KindListView, "operation-kinds"),
    *_paths(_ONE, operations.OperationDetailView, "operation"),
    *_paths(f"{_ONE}/items", operations.ItemListView, "operation-items"),
    *_paths(f"{_ONE}/start", operations.StartView, "operation-start"),
    *_paths(f"{_ONE}/pause", operations.PauseView, "operation-pause"),
    *_paths(f"{_ONE}/resume", operations.ResumeView, "operation-resume"),
    *_paths(f"{_ONE}/cancel", operations.CancelView, "operation-cancel"),
    *_paths(TROUBLES, troubles.TroubleListView, "troubles"),
    *_paths(f"{TROUBLES}/groups", troubles.GroupListView, "trouble-groups"),
    *_paths(f"{TROUBLES}/retries", troubles.RetryView, "trouble-retries"),
    *_paths(f"{TROUBLES}/notes", troubles.NoteView, "trouble-notes"),
    *_paths(LIFE, life.LifeView, "life"),
]
