"""The log's tables and those of its subscribers."""

from __future__ import annotations

from outbox.models.delivery import Delivery, DeliveryAttempt, DeliveryState, Detour
from outbox.models.log import AggregateSequence, LogEntry, StoredEvent, Unsequenced
from outbox.models.subscription import Lane, RelayProcess, Subscription, Watermark

__all__ = [
    "AggregateSequence",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryState",
    "Detour",
    "Lane",
    "LogEntry",
    "RelayProcess",
    "StoredEvent",
    "Subscription",
    "Unsequenced",
    "Watermark",
]
