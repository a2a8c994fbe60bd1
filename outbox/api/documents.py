"""Events, deliveries, groups and subscribers as JSON: the same for the API and the commands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import orjson
from django.utils import timezone

from outbox.board import BoardRow
from outbox.figures import FailedFigures, failed_figures, subscribers_figures, topics_figures
from outbox.groups import FailureGroup
from outbox.masking import payload_masked
from outbox.models import Delivery, DeliveryAttempt, Replacement, StoredEvent
from outbox.pending import PendingEvent, events_total

LONGEST_VALUE: Final = 1_000
"""Characters of a value in a diff; the payloads themselves have all of it."""


def delivery_document(delivery: Delivery, *, readable: bool, max_retries: int) -> dict[str, Any]:
    """A delivery, told as its event; with the payload masked for those who may not read it."""
    payload = delivery.envelope.get("payload")
    return {
        "id": delivery.event_id,
        "uid": delivery.envelope.get("uid"),
        "delivery_id": delivery.pk,
        "subscriber": delivery.subscription_id,
        "event_type": delivery.type,
        "topic": delivery.topic,
        "aggregate_type": delivery.aggregate_type,
        "aggregate_id": delivery.aggregate_id,
        "sequence": delivery.sequence,
        "payload": payload if readable else payload_masked(payload),
        "status": delivery.state,
        "resolution": delivery.resolution or None,
        "retry_count": max(0, delivery.attempts - 1),
        "max_retries": max_retries,
        "next_retry_at": instant(delivery.next_attempt_at),
        "created_at": delivery.envelope.get("created_at"),
        "first_failed_at": instant(delivery.created_at),
        "last_failed_at": instant(delivery.updated_at),
        "processed_at": instant(delivery.resolved_at) if delivery.resolution == "delivered" else None,
        "error_message": delivery.message,
        "error_class": delivery.error_class,
        "error_code": delivery.code,
        "fingerprint": delivery.fingerprint,
        "correlation_id": delivery.envelope.get("correlation_id") or None,
    }


def attempt_document(attempt: DeliveryAttempt) -> dict[str, Any]:
    """One attempt of the timeline."""
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "started_at": instant(attempt.started_at),
        "seconds": round(attempt.seconds, 6),
        "worker": attempt.worker,
        "error_class": attempt.error_class or None,
        "error_code": attempt.code or None,
        "error_message": attempt.message or None,
        "response": attempt.response or None,
    }


def replacement_document(made: Replacement, *, readable: bool) -> dict[str, Any]:
    """What was published in place of an event; of large values the beginning, with the names of those in ``cut``."""
    diff = [_difference(one) if readable else {"pointer": one["pointer"]} for one in made.diff]
    return {"original": made.original_id, "event": made.event_id, "diff": diff, "reason": made.reason}


def _difference(one: dict[str, Any]) -> dict[str, Any]:
    shown, cut = dict(one), []
    for name in ("before", "after"):
        value = one.get(name)
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        if len(text) > LONGEST_VALUE:
            shown[name] = text[:LONGEST_VALUE] + "…"
            cut.append(name)
    return {**shown, "cut": cut} if cut else shown


def pending_document(pending: PendingEvent, *, readable: bool) -> dict[str, Any]:
    """An event that waits, with where it stands with each subscriber that it waits for."""
    event: StoredEvent = pending.event
    payload = orjson.loads(event.payload)
    return {
        "id": event.pk,
        "uid": str(event.uid),
        "event_type": event.type,
        "topic": event.topic,
        "aggregate_type": event.aggregate_type,
        "aggregate_id": event.aggregate_id,
        "sequence": event.sequence,
        "payload": payload if readable else payload_masked(payload),
        "status": pending.status.value,
        "retry_count": pending.retry_count,
        "max_retries": pending.max_retries,
        "next_retry_at": instant(pending.next_retry_at),
        "created_at": instant(event.created_at),
        "processed_at": None,
        "error_message": pending.error_message or None,
        "subscribers": {one.subscriber: one.status.value for one in pending.statuses},
    }


def group_document(group: FailureGroup) -> dict[str, Any]:
    """A kind of failure; ``replay`` is the filter of the operation that retries all of it."""
    return {
        "fingerprint": group.fingerprint,
        "subscriber": group.subscriber,
        "error_class": group.error_class,
        "error_code": group.code,
        "error_message": group.message,
        "count": group.count,
        "dead": group.dead,
        "first_seen": instant(group.first_seen),
        "last_seen": instant(group.last_seen),
        "by_hour": list(group.hours),
        "sample": {"delivery_id": group.delivery_id, "id": group.event_id, "event_type": group.type},
        "replay": {"kind": "outbox.replay", "filter": {"fingerprint": group.fingerprint}},
    }


def subscriber_document(row: BoardRow) -> dict[str, Any]:
    """A subscriber, with its backlog in events and seconds."""
    figures = row.figures
    return {
        "name": figures.name,
        "state": row.state,
        "pause": None
        if row.paused_at is None
        else {
            "reason": row.paused_reason,
            "by": row.paused_by,
            "at": instant(row.paused_at),
            "until": instant(row.paused_until),
        },
        "breaker": None
        if not row.breaker_failures
        else {
            "failures": row.breaker_failures,
            "next_probe_at": instant(row.breaker_until),
            "message": row.breaker_message,
        },
        "rate_limit": row.rate_limit,
        "concurrency": row.concurrency,
        "keep_successes": row.keep_successes,
        "workers": row.workers,
        "backlog_events": figures.pending,
        "blocked_events": figures.blocked,
        "backlog_seconds": round(figures.lag_seconds, 3),
        "events_per_second": None if row.rate is None else round(row.rate, 3),
        "drain_seconds": None if row.drain_seconds is None else round(row.drain_seconds, 1),
        "processed": figures.processed,
        "errors": figures.errors,
        "retries": figures.retries,
    }


def statistics_document() -> dict[str, Any]:
    """Totals, rates and ages; per subscriber and topic. Rates are shares of attempts, null before the first."""
    subscribers, failed = subscribers_figures(), failed_figures()
    topics = topics_figures(subscribers)
    processed, errors = sum(one.processed for one in subscribers), sum(one.errors for one in subscribers)
    return {
        "measured_at": instant(timezone.now()),
        "total_events": events_total(),
        "total_processed": processed,
        "total_errors": errors,
        "total_retries": sum(one.retries for one in subscribers),
        "total_skipped": sum(one.skipped for one in topics),
        "total_replaced": sum(one.replaced for one in topics),
        "success_rate": _share(processed, processed + errors),
        "failure_rate": _share(errors, processed + errors),
        "pending": sum(one.pending for one in subscribers),
        "blocked": sum(one.blocked for one in subscribers),
        "retrying": _count(failed, "retrying"),
        "dead": _count(failed, "dead"),
        "dead_letter": _count(failed, "dead"),
        "oldest_pending_age_seconds": round(max((one.lag_seconds for one in subscribers), default=0.0), 3),
        "subscribers": [
            {
                "name": one.name,
                "pending": one.pending,
                "blocked": one.blocked,
                "processed": one.processed,
                "errors": one.errors,
                "retries": one.retries,
                "skipped": sum(row.skipped for row in topics if row.subscriber == one.name),
                "replaced": sum(row.replaced for row in topics if row.subscriber == one.name),
                "success_rate": _share(one.processed, one.processed + one.errors),
                "failure_rate": _share(one.errors, one.processed + one.errors),
                "oldest_pending_age_seconds": round(one.lag_seconds, 3),
                "retrying": _count([row for row in failed if row.subscriber == one.name], "retrying"),
                "dead": _count([row for row in failed if row.subscriber == one.name], "dead"),
                "paused": one.paused,
                "away": one.broken,
            }
            for one in subscribers
        ],
        "topics": [
            {
                "subscriber": one.subscriber,
                "topic": one.topic,
                "pending": one.pending,
                "processed": one.processed,
                "errors": one.errors,
                "retries": one.retries,
                "skipped": one.skipped,
                "replaced": one.replaced,
                "success_rate": _share(one.processed, one.processed + one.errors),
                "failure_rate": _share(one.errors, one.processed + one.errors),
                "retrying": _count(_of(failed, one.subscriber, one.topic), "retrying"),
                "dead": _count(_of(failed, one.subscriber, one.topic), "dead"),
            }
            for one in topics
        ],
    }


def _of(failed: Sequence[FailedFigures], subscriber: str, topic: str) -> list[FailedFigures]:
    return [row for row in failed if (row.subscriber, row.topic) == (subscriber, topic)]


def _count(failed: Sequence[FailedFigures], state: str) -> int:
    return sum(row.count for row in failed if row.state == state)


def _share(part: int, whole: int) -> float | None:
    return None if not whole else round(part / whole, 6)


def instant(moment: datetime | None) -> str | None:
    """A moment as the API writes it."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
