"""The read models' tile on the console's first page."""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest
from django.urls import reverse

from operations.overview import Figure, Tone
from projections.health import Status, projections_health

_TONES: dict[Status, Tone] = {Status.HEALTHY: "good", Status.DEGRADED: "warn"}


def read_models(request: HttpRequest) -> Sequence[Figure]:
    """The status of each, and what fails."""
    figures = []
    for name, one in projections_health().items():
        url = reverse("console-projection", args=[name])
        label = name.replace("_", " ")
        if one is None:
            figures.append(Figure(label=label, value="not built", tone="warn", url=url))
            continue
        word = one.status.value if not one.active_failures else f"{one.status.value}, {one.active_failures} failing"
        figures.append(Figure(label=label, value=word, tone=_TONES.get(one.status, "bad"), url=url))
    return figures
