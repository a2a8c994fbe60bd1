"""Addresses of the shop, each with and without its trailing slash."""

from __future__ import annotations

from typing import Any, Final

from django.urls import URLPattern, path

from examples.petstore import views

PREFIX: Final = "api/v1/petstore-outbox"


def _paths(place: str, view: Any, name: str) -> list[URLPattern]:
    return [
        path(f"{PREFIX}/{place}", view.as_view(), name=f"petstore-{name}"),
        path(f"{PREFIX}/{place}/", view.as_view(schema=None)),
    ]


urlpatterns: list[URLPattern] = [
    *_paths("pets", views.PetView, "pets"),
    *_paths("orders", views.OrderView, "orders"),
    *_paths("orders/<str:order_id>", views.OneOrderView, "order"),
    *_paths("users/<str:user_id>/register", views.RegisterView, "register"),
    *_paths("metrics", views.MetricsView, "metrics"),
    *_paths("health", views.HealthView, "health"),
]
