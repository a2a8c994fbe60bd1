"""Addresses of the log for operators; those under admin/ stand before the console's."""

from __future__ import annotations

from typing import Any

from django.urls import URLPattern, path

from outbox.api import consumed_views, delivery_views, subscriber_views, views

_COMMON: dict[str, Any] = {
    "statistics": views.StatisticsView,
    "pending": views.PendingView,
    "dead-letter": views.DeadLetterView,
    "retry/<str:event_id>": views.RetryView,
    "process": views.ProcessView,
}
_MORE: dict[str, Any] = {
    "groups": views.GroupsView,
    "deliveries/<str:delivery_id>": delivery_views.DeliveryView,
    "deliveries/<str:delivery_id>/retry": delivery_views.DeliveryRetryView,
    "deliveries/<str:delivery_id>/skip": delivery_views.DeliverySkipView,
    "deliveries/<str:delivery_id>/replace": delivery_views.DeliveryReplaceView,
    "consumed": consumed_views.ConsumedView,
    "consumed/<str:message_id>": consumed_views.OneConsumedView,
    "consumed/<str:message_id>/redrive": consumed_views.ConsumedRedriveView,
    "consumed/<str:message_id>/discard": consumed_views.ConsumedDiscardView,
    "subscribers": subscriber_views.SubscribersView,
    "subscribers/<str:name>": subscriber_views.SubscriberView,
    "subscribers/<str:name>/pause": subscriber_views.PauseView,
    "subscribers/<str:name>/resume": subscriber_views.ResumeView,
    "subscribers/<str:name>/probe": subscriber_views.ProbeView,
    "subscribers/<str:name>/republish": subscriber_views.RepublishView,
}


def _paths(prefix: str, found: dict[str, Any], *, described: bool) -> list[URLPattern]:
    """Each address with and without its trailing slash; one form of each is in the API's description."""
    shown: dict[str, Any] = {} if described else {"schema": None}
    return [
        pattern
        for name, view in found.items()
        for pattern in (
            path(f"{prefix}/{name}", view.as_view(**shown)),
            path(f"{prefix}/{name}/", view.as_view(schema=None)),
        )
    ]


urlpatterns: list[URLPattern] = [
    *_paths("api/v1/admin/outbox", {**_COMMON, **_MORE}, described=True),
    *_paths("admin/outbox", _COMMON, described=False),
]
