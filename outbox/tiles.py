"""This app's tile on the console's first page."""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest
from django.urls import reverse

from operations.overview import Figure, Tone
from outbox.figures import failed_figures, subscribers_figures


def log(request: HttpRequest) -> Sequence[Figure]:
    """What waits for each subscriber, and what failed."""
    url = reverse("admin:outbox_subscription_changelist")
    figures = []
    for one in subscribers_figures():
        word = " (paused)" if one.paused else " (away)" if one.broken else ""
        tone: Tone = "warn" if one.paused or one.broken else "plain"
        figures.append(Figure(label=f"waiting for {one.name}{word}", value=one.pending, tone=tone, url=url))
    deliveries = reverse("admin:outbox_delivery_changelist")
    counts = {"retrying": 0, "dead": 0}
    labels = {"retrying": "deliveries retrying", "dead": "dead letters"}
    for row in failed_figures():
        counts[row.state] += row.count
    for state, count in counts.items():
        tone = "plain" if not count else "bad" if state == "dead" else "warn"
        figures.append(Figure(label=labels[state], value=count, tone=tone, url=f"{deliveries}?state={state}"))
    return figures
