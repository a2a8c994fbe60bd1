"""The log's tables and those of its subscribers."""

from __future__ import annotations

from outbox.models.delivery import Delivery, DeliveryAttempt, DeliveryState, Detour, Outcome, Replacement, Resolution
from outbox.models.log import AggregateSequence, LogEntry, Retained, StoredEvent, Unsequenced
from outbox.models.subscription import Lane, RelayProcess, Subscription, TopicFigure, Watermark

__all__ = [
    "AggregateSequence",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryState",
    "Detour",
    "Lane",
    "LogEntry",
    "Outcome",
    "RelayProcess",
    "Replacement",
    "Resolution",
    "Retained",
    "StoredEvent",
    "Subscription",
    "TopicFigure",
    "Unsequenced",
    "Watermark",
]
