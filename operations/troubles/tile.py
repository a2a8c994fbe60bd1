"""The tile of troubles on the console's first page."""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest
from django.urls import reverse

from operations.overview import Figure
from operations.troubles.access import sources_for
from operations.troubles.sources import COUNTED_AT_MOST


def troubles(request: HttpRequest) -> Sequence[Figure]:
    """How much needs a person, by source; each count stops at 10,000."""
    figures = []
    for source in sources_for(request):
        count = sum(source.counts().values())
        value = f"{COUNTED_AT_MOST:,} or more" if count >= COUNTED_AT_MOST else count
        url = f"{reverse('console-troubles')}?source={source.name}"
        figures.append(Figure(label=source.title, value=value, tone="bad" if count else "good", url=url))
    return figures
