"""The shop's figures, measured: what of its events waits, failed and went through, and whether anybody is at work."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection
from django.utils import timezone

from examples.petstore.order_book import OrderBook
from examples.petstore.services import TOPICS
from operations.readiness import components
from outbox.models import RelayProcess, Subscription
from projections.health import projection_health

KAFKA: Final = "kafka"
COUNTED_AT_MOST: Final = 100_000
SEEN_SECONDS: Final = 30

# The events of the shop after an id, by where they stand with Kafka; each by indexes, at most COUNTED_AT_MOST of them.
COUNT_SQL: Final = """
SELECT count(*) FILTER (WHERE d.id IS NULL AND l.position <= n.cursor),
       count(*) FILTER (WHERE d.id IS NULL AND (l.position IS NULL OR l.position > n.cursor)),
       count(*) FILTER (WHERE d.state = 'dead')
  FROM (SELECT id, lane FROM outbox_event WHERE id > %(after)s AND topic = ANY (%(topics)s::text[])
         ORDER BY id DESC LIMIT %(most)s) e
  LEFT JOIN outbox_lane n ON n.subscription_id = %(subscriber)s AND n.lane = e.lane
  LEFT JOIN outbox_log l ON l.event_id = e.id
  LEFT JOIN LATERAL (SELECT id, state FROM outbox_delivery d
                      WHERE d.event_id = e.id AND d.subscription_id = %(subscriber)s
                        AND (d.state IN ('retrying', 'dead') OR d.resolution IN ('skipped', 'replaced'))
                      ORDER BY d.id DESC LIMIT 1) d ON true
"""


@dataclass(frozen=True, slots=True)
class ShopFigures:
    """The shop's figures.

    Attributes:
        pending_events: of today, not in Kafka yet.
        failed_events: of today, given up; a person decides.
        processed_today: of today (UTC), in Kafka; 100,000 events are looked at at most.
        running: whether a relay serves Kafka, or its events went through within the last seconds.
        kafka_connected: whether a broker answers and no breaker is open.
        order_book: status of the read model.
    """

    pending_events: int
    failed_events: int
    processed_today: int
    running: bool
    kafka_connected: bool
    order_book: str


def shop_figures() -> ShopFigures:
    """Measured now."""
    values: dict[str, Any] = {
        "after": _last_id_before(timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)),
        "topics": list(TOPICS),
        "subscriber": KAFKA,
        "most": COUNTED_AT_MOST,
    }
    with connection.cursor() as cursor:
        cursor.execute(COUNT_SQL, values)
        processed, pending, dead = cursor.fetchone()
    book = projection_health(OrderBook.name)
    return ShopFigures(
        pending_events=pending,
        failed_events=dead,
        processed_today=processed,
        running=_running(),
        kafka_connected=_connected(),
        order_book=book.status.value if book else "offline",
    )


def _running() -> bool:
    since = timezone.now() - dt.timedelta(seconds=SEEN_SECONDS)
    if RelayProcess.objects.filter(subscription_id=KAFKA, seen_at__gt=since).exists():
        return True
    with connection.cursor() as cursor:
        # Celery's beat leaves no row; what it delivers moves cursors.
        cursor.execute("SELECT max(moved_at) > %s FROM outbox_lane WHERE subscription_id = %s", [since, KAFKA])
        return bool(cursor.fetchone()[0])


def _connected() -> bool:
    subscription = Subscription.objects.filter(name=KAFKA, active=True).first()
    if subscription is None or subscription.breaker_failures:
        return False
    broker = next((component for component in components() if component.name == "kafka"), None)
    return broker is not None and not broker.check()


def _last_id_before(moment: dt.datetime) -> int:
    """The last event before a moment, found by halves along the primary key: ids follow time closely enough."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT COALESCE(min(id), 1) - 1, COALESCE(max(id), 0) FROM outbox_event")
        low, high = cursor.fetchone()
        while low < high:
            middle = (low + high + 1) // 2
            cursor.execute("SELECT created_at FROM outbox_event WHERE id >= %s ORDER BY id LIMIT 1", [middle])
            row = cursor.fetchone()
            if row is not None and row[0] < moment:
                low = middle
            else:
                high = middle - 1
    return int(low)
