"""This app's tile on the console's first page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.http import HttpRequest
from django.urls import reverse

from operations.overview import Figure, Tone
from outbox.figures import subscribers_figures
from outbox.models import Delivery

COUNTED_AT_MOST: Final = 1_000
_FAILED: Final[tuple[tuple[str, str, Tone], ...]] = (
    ("retrying", "deliveries retrying", "warn"),
    ("dead", "dead deliveries", "bad"),
)


def log(request: HttpRequest) -> Sequence[Figure]:
    """What waits for each subscriber, and what failed."""
    url = reverse("admin:outbox_subscription_changelist")
    figures = []
    for one in subscribers_figures():
        word = " (paused)" if one.paused else " (away)" if one.broken else ""
        tone: Tone = "warn" if one.paused or one.broken else "plain"
        figures.append(Figure(label=f"waiting for {one.name}{word}", value=one.pending, tone=tone, url=url))
    deliveries = reverse("admin:outbox_delivery_changelist")
    for state, label, bad in _FAILED:
        # By the index of states, and not to its end: the page opens in no time however much failed.
        count = Delivery.objects.filter(state=state).order_by()[: COUNTED_AT_MOST + 1].count()
        value = count if count <= COUNTED_AT_MOST else f"over {COUNTED_AT_MOST:,}"
        tone = bad if count else "plain"
        figures.append(Figure(label=label, value=value, tone=tone, url=f"{deliveries}?state__exact={state}"))
    return figures
