"""The status of events, computed: nothing is written per event."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection
from django.db.models import TextChoices

from outbox.errors import UnknownSubscriber


class EventStatus(TextChoices):
    """Where an event stands, worst first."""

    DEAD = "dead"
    RETRYING = "retrying"
    BLOCKED = "blocked"
    PENDING = "pending"
    SKIPPED = "skipped"
    REPLACED = "replaced"
    PROCESSED = "processed"


# Per subscriber: its open delivery's state; else pending beyond the cursor; else blocked behind a detour; else what a
# person decided instead of delivering it; else processed. The moment is that of the delivery's resolution, else that of
# the first watermark past the position.
STATUS_SQL: Final = """
SELECT e.id, s.name,
       CASE WHEN d.id IS NOT NULL AND d.state <> 'resolved' THEN d.state
            WHEN l.position IS NULL OR l.position > n.cursor THEN 'pending'
            WHEN t.id IS NOT NULL AND e.sequence >= t.next_sequence THEN 'blocked'
            WHEN d.resolution IN ('skipped', 'replaced') THEN d.resolution
            ELSE 'processed' END,
       l.position, COALESCE(d.attempts, 0), d.next_attempt_at, COALESCE(d.message, ''),
       COALESCE(d.resolved_at, (SELECT w.passed_at FROM outbox_watermark w
                                 WHERE w.subscription_id = s.name AND w.position >= l.position
                                 ORDER BY w.position LIMIT 1))
  FROM outbox_event e
  JOIN outbox_subscription s ON s.active AND (s.topics IS NULL OR e.topic = ANY (s.topics))
  JOIN outbox_lane n ON n.subscription_id = s.name AND n.lane = e.lane
  LEFT JOIN outbox_log l ON l.event_id = e.id
  LEFT JOIN LATERAL (SELECT * FROM outbox_delivery d WHERE d.event_id = e.id AND d.subscription_id = s.name
                      ORDER BY d.id DESC LIMIT 1) d ON true
  LEFT JOIN outbox_detour t ON t.subscription_id = s.name AND t.aggregate_type = e.aggregate_type
       AND t.aggregate_id = e.aggregate_id
 WHERE e.id = ANY (%(events)s::bigint[]) AND (%(name)s::text IS NULL OR s.name = %(name)s)
 ORDER BY e.id, s.name
"""


@dataclass(frozen=True, slots=True)
class SubscriberStatus:
    """Where one event stands with one subscriber.

    Attributes:
        subscriber: its name.
        status: as above.
        position: the event's place in the log, or None while it has none.
        attempts: attempts that failed, or are under way after one that did.
        next_attempt_at: of a retrying one.
        message: of the last failure.
        processed_at: late by a second or two and never early; None while unknown.
    """

    subscriber: str
    status: EventStatus
    position: int | None
    attempts: int
    next_attempt_at: datetime | None
    message: str
    processed_at: datetime | None


def events_statuses(event_ids: Sequence[int], *, subscriber: str | None = None) -> dict[int, list[SubscriberStatus]]:
    """Where events stand with each subscriber that wants them, or with one; in one query.

    Ids that do not exist are left out, and so are subscribers that have not been set up yet.
    """
    found: dict[int, list[SubscriberStatus]] = {}
    with connection.cursor() as cursor:
        cursor.execute(STATUS_SQL, {"events": list(event_ids), "name": subscriber})
        for event_id, name, status, position, attempts, next_at, message, processed_at in cursor.fetchall():
            state = EventStatus(status)
            one = SubscriberStatus(
                subscriber=name,
                status=state,
                position=position,
                attempts=attempts,
                next_attempt_at=next_at if state is EventStatus.RETRYING else None,
                message=message,
                processed_at=processed_at if state is EventStatus.PROCESSED else None,
            )
            found.setdefault(event_id, []).append(one)
    return found


def worst_status(statuses: Sequence[SubscriberStatus]) -> EventStatus:
    """An event's own status: the worst that it has with any subscriber; processed if nobody wants it."""
    order = list(EventStatus)
    return min((one.status for one in statuses), key=order.index, default=EventStatus.PROCESSED)


def wait_for(event_id: int, subscriber: str, timeout: float) -> EventStatus:
    """Wait until an event went through to a subscriber; call it after the commit, outside of a transaction.

    Args:
        event_id: what ``publish`` returned.
        subscriber: name of the subscriber.
        timeout: seconds.

    Returns:
        PROCESSED as soon as it is; SKIPPED or REPLACED when a person decided so; RETRYING, BLOCKED or DEAD as soon as
        that is known, since it will not come by waiting a little; PENDING when the time is over.

    Raises:
        UnknownSubscriber: it does not exist in the database, or does not want the event, or there is no such event.
    """
    deadline = time.monotonic() + timeout
    pause = 0.005
    while True:
        statuses = events_statuses([event_id], subscriber=subscriber).get(event_id)
        if statuses is None:
            raise UnknownSubscriber(f"{subscriber!r} does not wait for event {event_id}.")
        status = statuses[0].status
        if status is not EventStatus.PENDING or time.monotonic() >= deadline:
            return status
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.5, 0.1)
