"""Subscriptions: made when a subscriber first appears, paused by people, broken and mended by outages."""

from __future__ import annotations

import random
from datetime import datetime
from enum import Enum
from typing import Final

import structlog
from django.db import connection, transaction
from django.utils import timezone

from outbox.lanes import LANES
from outbox.models import Subscription
from outbox.sequencing import LOCK_KEY
from outbox.subscribers import Subscriber, subscribers

log = structlog.get_logger(__name__)

BREAKER_FIRST_SECONDS: Final = 1.0
BREAKER_LONGEST_SECONDS: Final = 30.0

# All lanes start at one place. A reader that starts at the head must hold the sequencer's lock while it reads it:
# only then is every position up to it visible, and the ones after it unseen.
HEAD_SQL: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_log_position_seq"
LANES_SQL: Final = """
INSERT INTO outbox_lane (subscription_id, lane, cursor, lease_until)
SELECT %(name)s, lane, %(cursor)s, 'epoch' FROM generate_series(0, %(last)s) AS lane
ON CONFLICT (subscription_id, lane) DO NOTHING
"""

GATE_SQL: Final = """
SELECT paused_at IS NOT NULL AND COALESCE(paused_until > clock_timestamp(), true),
       breaker_failures > 0, COALESCE(breaker_until > clock_timestamp(), false)
  FROM outbox_subscription WHERE name = %s
"""

# The probe after an outage: whoever moves the moment on may try one batch, the others wait for what comes of it.
PROBE_SQL: Final = """
UPDATE outbox_subscription SET breaker_until = clock_timestamp() + %(seconds)s * interval '1 second'
 WHERE name = %(name)s AND breaker_failures > 0 AND breaker_until <= clock_timestamp() RETURNING name
"""
RETURN_SQL: Final = """
UPDATE outbox_subscription SET breaker_until = clock_timestamp() WHERE name = %(name)s AND breaker_failures > 0
"""
OPEN_SQL: Final = """
UPDATE outbox_subscription
   SET breaker_failures = breaker_failures + 1, breaker_message = %(message)s,
       breaker_until = clock_timestamp()
         + %(jitter)s * least(%(longest)s, %(first)s * 2 ^ least(breaker_failures, 20)) * interval '1 second'
 WHERE name = %(name)s RETURNING breaker_failures
"""
CLOSE_SQL: Final = """
UPDATE outbox_subscription SET breaker_failures = 0, breaker_until = NULL, breaker_message = ''
 WHERE name = %(name)s AND breaker_failures > 0
"""


class Gate(Enum):
    """Whether a subscriber may be given events now."""

    OPEN = "open"
    CLOSED = "closed"
    PROBE = "probe"


def subscription_ensure(subscriber: Subscriber) -> None:
    """Make the subscription and its lanes if they are missing; cheap when they are there."""
    topics = sorted(subscriber.topics) if subscriber.topics is not None else None
    wanted = {"topics": topics, "max_retries": len(subscriber.retry_ladder()), "active": True}
    found = Subscription.objects.filter(name=subscriber.name).values(*wanted).first()
    if found == wanted:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        Subscription.objects.update_or_create(name=subscriber.name, defaults=wanted)
        start = 0
        if subscriber.start_at == "head":
            cursor.execute(HEAD_SQL)
            start = cursor.fetchone()[0]
        cursor.execute(LANES_SQL, {"name": subscriber.name, "cursor": start, "last": LANES - 1})


def subscriptions_ensure() -> None:
    """Make the subscriptions of all listed subscribers; those no longer listed stop counting, and keep their place."""
    for subscriber in subscribers():
        subscription_ensure(subscriber)
    listed = [subscriber.name for subscriber in subscribers()]
    Subscription.objects.filter(active=True).exclude(name__in=listed).update(active=False)


def subscription_pause(*, name: str, reason: str, until: datetime | None = None) -> None:
    """Give the subscriber no events from the next batch on.

    Args:
        name: of the subscriber.
        reason: why, for whoever looks.
        until: when it goes on by itself; None waits for ``subscription_resume``.
    """
    Subscription.objects.filter(name=name).update(paused_at=timezone.now(), paused_until=until, paused_reason=reason)
    log.warning("subscription_paused", subscriber=name, reason=reason)


def subscription_resume(*, name: str) -> None:
    """Give the subscriber events again, where it stopped."""
    Subscription.objects.filter(name=name).update(paused_at=None, paused_until=None, paused_reason="")
    log.info("subscription_resumed", subscriber=name)


def gate_of(name: str) -> Gate:
    """Whether the subscriber may be given events; PROBE means that a probe is due, and must be claimed first."""
    with connection.cursor() as cursor:
        cursor.execute(GATE_SQL, [name])
        paused, broken, waiting = cursor.fetchone() or (True, False, False)
    if paused or waiting:
        return Gate.CLOSED
    return Gate.PROBE if broken else Gate.OPEN


def probe_claim(name: str, *, seconds: float) -> bool:
    """Claim the one try after an outage, for ``seconds``."""
    with connection.cursor() as cursor:
        cursor.execute(PROBE_SQL, {"name": name, "seconds": seconds})
        return cursor.fetchone() is not None


def probe_return(name: str) -> None:
    """Give a claimed try back unused: there was nothing to try it with."""
    with connection.cursor() as cursor:
        cursor.execute(RETURN_SQL, {"name": name})


def breaker_open(name: str, *, message: str) -> None:
    """Stop giving events to a subscriber whose other side is away, for 1 to 30 seconds, longer each time."""
    with connection.cursor() as cursor:
        values = {"first": BREAKER_FIRST_SECONDS, "longest": BREAKER_LONGEST_SECONDS}
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads probes, no secret
        cursor.execute(OPEN_SQL, {"name": name, "message": message[:1000], "jitter": jitter, **values})
        row = cursor.fetchone()
    log.warning("breaker_opened", subscriber=name, failures=row[0] if row else 0, message=message[:200])


def breaker_close(name: str) -> None:
    """The other side answers again."""
    with connection.cursor() as cursor:
        cursor.execute(CLOSE_SQL, {"name": name})
    log.info("breaker_closed", subscriber=name)
