"""The statistics of the outbox, made at most once a second however many ask for them."""

from __future__ import annotations

from typing import Any, Final

from django.db import transaction

from operations.caching import MomentaryCache
from outbox.api.documents import statistics_document
from outbox.conf import statistics_seconds

_CACHE: Final = MomentaryCache("outbox:statistics", seconds=statistics_seconds)


def statistics_recent() -> dict[str, Any]:
    """As ``statistics_document``, at most OUTBOX_STATISTICS_SECONDS old; ``measured_at`` says of when."""
    return _CACHE.get(statistics_document)


def statistics_forget() -> None:
    """After the commit of the transaction under way: whoever decided something sees it in the next answer."""
    transaction.on_commit(_CACHE.forget)
