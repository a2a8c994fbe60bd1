"""The log's tables and those of its subscribers."""

from __future__ import annotations

from outbox.models.delivery import Delivery, DeliveryAttempt, DeliveryState, Detour, Outcome, Replacement, Resolution
from outbox.models.inbox import (
    InboxAggregate,
    InboxMessage,
    InboxPartition,
    ParkedMessage,
    ParkedResolution,
    ParkedState,
)
from outbox.models.log import AggregateSequence, LogEntry, Retained, StoredEvent, Unsequenced
from outbox.models.subscription import DurationFigure, Lane, RelayProcess, Subscription, TopicFigure, Watermark

__all__ = [
    "AggregateSequence",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryState",
    "Detour",
    "DurationFigure",
    "InboxAggregate",
    "InboxMessage",
    "InboxPartition",
    "Lane",
    "LogEntry",
    "Outcome",
    "ParkedMessage",
    "ParkedResolution",
    "ParkedState",
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
