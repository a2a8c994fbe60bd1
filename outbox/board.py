"""The subscriber board: state, limits, backlog and when it will be drained."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection
from django.utils import timezone

from outbox.errors import UnknownSubscriber
from outbox.figures import SubscriberFigures, subscribers_figures
from outbox.models import Subscription
from outbox.subscribers import Subscriber, subscriber_named, subscriber_unknown

RATE_WINDOW_SECONDS: Final = 300

# How many places a second the slowest lane passed lately. The history has one row a second at most, so 300 rows reach
# back at least as far as is looked at.
RATE_SQL: Final = """
SELECT s.name, (max(w.position) - min(w.position))
               / nullif(EXTRACT(epoch FROM max(w.passed_at) - min(w.passed_at)), 0)::float8
  FROM outbox_subscription s
 CROSS JOIN LATERAL (SELECT position, passed_at FROM outbox_watermark
                      WHERE subscription_id = s.name ORDER BY position DESC LIMIT %(rows)s) w
 WHERE s.active AND w.passed_at > clock_timestamp() - %(seconds)s * interval '1 second'
 GROUP BY s.name
"""
WORKERS_SQL: Final = """
SELECT subscription_id, count(DISTINCT owner) FROM outbox_lane
 WHERE owner <> '' AND lease_until > clock_timestamp() GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One subscriber, as operators see it.

    Attributes:
        figures: how much waits, was processed and failed.
        state: ``active``, ``paused`` or ``away`` (its breaker is open).
        paused_at, paused_until, paused_reason, paused_by: of a pause in force.
        breaker_failures, breaker_until, breaker_message: of an open breaker.
        rate_limit, concurrency: in force, or None.
        keep_successes: whether an attempt of each event that went through is kept.
        workers: that hold lanes now.
        rate: events a second, lately; None while too little is known.
        drain_seconds: until what waits now is delivered at that rate; None while it is paused, away or unknown.
    """

    figures: SubscriberFigures
    state: str
    paused_at: datetime | None
    paused_until: datetime | None
    paused_reason: str
    paused_by: str
    breaker_failures: int
    breaker_until: datetime | None
    breaker_message: str
    rate_limit: float | None
    concurrency: int | None
    keep_successes: bool
    workers: int
    rate: float | None
    drain_seconds: float | None


def subscribers_board() -> list[BoardRow]:
    """All subscribers in use; some ten milliseconds, whatever the backlog."""
    with connection.cursor() as cursor:
        cursor.execute(RATE_SQL, {"rows": RATE_WINDOW_SECONDS, "seconds": RATE_WINDOW_SECONDS})
        rates: dict[str, float | None] = dict(cursor.fetchall())
        cursor.execute(WORKERS_SQL)
        workers: dict[str, int] = dict(cursor.fetchall())
    rows = Subscription.objects.in_bulk()
    return [
        _row(rows[figures.name], figures, rates.get(figures.name), workers.get(figures.name, 0))
        for figures in subscribers_figures()
        if figures.name in rows
    ]


def board_row(name: str) -> BoardRow:
    """One subscriber.

    Raises:
        UnknownSubscriber: none of this name is in use.
    """
    for row in subscribers_board():
        if row.figures.name == name:
            return row
    raise subscriber_unknown(name)


def _row(one: Subscription, figures: SubscriberFigures, rate: float | None, workers: int) -> BoardRow:
    declared = _declared(one.name)
    rate_limit = one.rate_limit if one.rate_limit is not None or declared is None else declared.rate_limit
    concurrency = one.concurrency if one.concurrency is not None or declared is None else declared.concurrency
    paused = one.is_paused(timezone.now())
    state = "paused" if paused else "away" if figures.broken else "active"
    usable = rate if rate_limit is None or rate is None else min(rate, rate_limit)
    drain = 0.0 if not figures.pending else figures.pending / usable if usable and state == "active" else None
    return BoardRow(
        figures=figures,
        state=state,
        paused_at=one.paused_at if paused else None,
        paused_until=one.paused_until if paused else None,
        paused_reason=one.paused_reason if paused else "",
        paused_by=one.paused_by if paused else "",
        breaker_failures=one.breaker_failures,
        breaker_until=one.breaker_until,
        breaker_message=one.breaker_message,
        rate_limit=rate_limit,
        concurrency=concurrency,
        keep_successes=one.keep_successes,
        workers=workers,
        rate=rate,
        drain_seconds=drain,
    )


def _declared(name: str) -> Subscriber | None:
    try:
        return subscriber_named(name)
    except UnknownSubscriber:
        # In use, by another process with other settings.
        return None
