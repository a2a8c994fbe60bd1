"""Events that wait for some subscriber: retrying ones, those that have no place yet, and those beyond a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection

from outbox.models import StoredEvent, Subscription
from outbox.status import EventStatus, SubscriberStatus, events_statuses, worst_status

COUNTED: Final = 10_000

# The oldest events that are not with every subscriber yet, in order of their ids: of each lane the first few beyond the
# slowest cursor (its primary key), what is not sequenced, and what is retried (by state).
PENDING_SQL: Final = """
WITH slowest AS (
  SELECT n.lane, min(n.cursor) AS cursor FROM outbox_lane n
    JOIN outbox_subscription s ON s.name = n.subscription_id AND s.active GROUP BY n.lane
)
SELECT id FROM (
  (SELECT l.event_id AS id FROM slowest n
    CROSS JOIN LATERAL (SELECT event_id FROM outbox_log l WHERE l.lane = n.lane AND l.position > n.cursor
                         ORDER BY l.position LIMIT %(most)s) l)
  UNION (SELECT id FROM outbox_unsequenced ORDER BY id LIMIT %(most)s)
  UNION (SELECT event_id FROM outbox_delivery WHERE state = 'retrying' ORDER BY state, id DESC LIMIT %(most)s)
) x ORDER BY id LIMIT %(most)s
"""
# Exact as long as there are few; beyond that the number of the last place and what has none yet.
TOTAL_SQL: Final = """
SELECT CASE WHEN c.count < %(counted)s THEN c.count
            ELSE (SELECT last_value FROM outbox_log_position_seq)
               + (SELECT count(*) FROM (SELECT 1 FROM outbox_unsequenced LIMIT %(counted)s) u) END
  FROM (SELECT count(*) FROM (SELECT 1 FROM outbox_event LIMIT %(counted)s) x) c
"""


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """An event that waits.

    Attributes:
        event: the event.
        statuses: where it stands with each subscriber that wants it.
        max_retries: of the subscriber that it fares worst with.
    """

    event: StoredEvent
    statuses: Sequence[SubscriberStatus]
    max_retries: int

    @property
    def status(self) -> EventStatus:
        return worst_status(self.statuses)

    @property
    def retry_count(self) -> int:
        return max((max(0, one.attempts - 1) for one in self.statuses), default=0)

    @property
    def next_retry_at(self) -> datetime | None:
        return min((one.next_attempt_at for one in self.statuses if one.next_attempt_at), default=None)

    @property
    def error_message(self) -> str:
        return next((one.message for one in self.statuses if one.message and one.status is self.status), "")


def pending_events(*, most: int) -> list[PendingEvent]:
    """The oldest events that wait for some subscriber.

    What became processed between the two looks is left out, and so is what is dead or waits behind what is dead: that
    waits for people.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL jit = off" if connection.in_atomic_block else "SET jit = off")
        cursor.execute(PENDING_SQL, {"most": most})
        ids = [row[0] for row in cursor.fetchall()]
    retries = dict(Subscription.objects.values_list("name", "max_retries"))
    statuses = events_statuses(ids)
    waits = (EventStatus.PENDING, EventStatus.RETRYING)
    found = []
    for event in StoredEvent.objects.filter(pk__in=ids).order_by("pk"):
        mine = statuses.get(event.pk, [])
        if any(one.status in waits for one in mine):
            most_retries = max((retries.get(one.subscriber, 0) for one in mine), default=0)
            found.append(PendingEvent(event, mine, most_retries))
    return found


def events_total() -> int:
    """How many events were published; beyond ten thousand an upper bound, since numbers of undone work are skipped."""
    with connection.cursor() as cursor:
        cursor.execute(TOTAL_SQL, {"counted": COUNTED})
        return int(cursor.fetchone()[0])
