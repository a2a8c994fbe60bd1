"""What the log holds, for assertions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from outbox.models import StoredEvent


@dataclass(frozen=True)
class Published:
    """One event of the log."""

    type: str
    aggregate_id: str
    sequence: int
    topic: str
    origin: str
    payload: dict[str, Any]
    headers: dict[str, str]


def published() -> list[Published]:
    """All events, in the order of their ids."""
    return [
        Published(
            row.type,
            row.aggregate_id,
            row.sequence,
            row.topic,
            row.origin,
            orjson.loads(row.payload),
            orjson.loads(row.headers),
        )
        for row in StoredEvent.objects.order_by("id")
    ]
