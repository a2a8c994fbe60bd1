"""Subscriptions: made when a subscriber first appears; paused and limited by people while it runs."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.db.models import Case, F, When
from django.db.models.functions import Now

from dbresilience.transactions import run_in_transaction
from operations.audit import SYSTEM, audit_record
from outbox.errors import InvalidLimit
from outbox.lanes import LANES
from outbox.models import Retained, Subscription
from outbox.sequencing import LOCK_KEY
from outbox.subscribers import Subscriber, subscriber_unknown, subscribers
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

# All lanes start at one place. A reader that starts at the head must hold the sequencer's lock while it reads it:
# only then is every position up to it visible, and the ones after it unseen.
HEAD_SQL: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_log_position_seq"
BEHIND_SQL: Final = """
WITH behind AS (
  SELECT id FROM outbox_lane WHERE subscription_id = %(name)s AND cursor < %(start)s ORDER BY lane FOR UPDATE
)
UPDATE outbox_lane AS l SET cursor = %(start)s FROM behind WHERE l.id = behind.id
"""
LANES_SQL: Final = """
INSERT INTO outbox_lane (subscription_id, lane, cursor, lease_until)
SELECT %(name)s, lane, %(cursor)s, 'epoch' FROM generate_series(0, %(last)s) AS lane
ON CONFLICT (subscription_id, lane) DO NOTHING
"""


def subscription_ensure(subscriber: Subscriber) -> None:
    """Make the subscription and its lanes if they are missing; cheap when they are there."""
    topics = sorted(subscriber.topics) if subscriber.topics is not None else None
    wanted = {"topics": topics, "max_retries": len(subscriber.retry_ladder()), "active": True}
    found = Subscription.objects.filter(name=subscriber.name).values(*wanted).first()
    if found == wanted:
        return

    def work() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
            _, is_new = Subscription.objects.update_or_create(name=subscriber.name, defaults=wanted)
            whole = Retained.objects.values_list("first_position", flat=True).first() or 1
            start = whole - 1
            if subscriber.start_at == "head":
                cursor.execute(HEAD_SQL)
                start = cursor.fetchone()[0]
            cursor.execute(LANES_SQL, {"name": subscriber.name, "cursor": start, "last": LANES - 1})
            # Events that it would have to begin with were removed. Whether it may begin later is for a person to say.
            cursor.execute(BEHIND_SQL, {"name": subscriber.name, "start": whole - 1})
            if cursor.rowcount or (is_new and whole > 1 and subscriber.start_at == "first"):
                reason = f"The log is whole from position {whole} on only; resume to begin there."
                subscription_pause(name=subscriber.name, reason=reason)

    run_in_transaction(work)


def subscriptions_ensure() -> None:
    """Make the subscriptions of all listed subscribers; those no longer listed stop counting, and keep their place."""
    for subscriber in subscribers():
        subscription_ensure(subscriber)
    listed = [subscriber.name for subscriber in subscribers()]
    Subscription.objects.filter(active=True).exclude(name__in=listed).update(active=False)


def subscription_pause(*, name: str, reason: str, until: datetime | None = None, actor: str = SYSTEM) -> None:
    """Give the subscriber no events from the next batch on; a call that is under way ends.

    Args:
        name: of the subscriber.
        reason: why, for whoever looks.
        until: when it goes on by itself; None waits for ``subscription_resume``.
        actor: who asks for it.

    Raises:
        UnknownSubscriber: it has no subscription.
    """
    values = {"paused_at": Now(), "paused_until": until, "paused_reason": reason[:1000], "paused_by": actor[:200]}

    def work() -> None:
        _update(name, values)
        detail = {"reason": reason[:1000], "until": until.isoformat() if until else None}
        audit_record(actor=actor, action="subscriber.paused", target=f"subscriber:{name}", detail=detail)

    run_in_transaction(work)
    log.warning("subscription_paused", subscriber=name, reason=reason)


def subscription_resume(*, name: str, actor: str = SYSTEM) -> None:
    """Give the subscriber events again, where it stopped.

    Raises:
        UnknownSubscriber: it has no subscription.
    """

    def work() -> None:
        _update(name, {"paused_at": None, "paused_until": None, "paused_reason": "", "paused_by": ""})
        audit_record(actor=actor, action="subscriber.resumed", target=f"subscriber:{name}")
        transaction.on_commit(partial(wake, "log"))

    run_in_transaction(work)
    log.info("subscription_resumed", subscriber=name)


def breaker_try(*, name: str, actor: str) -> None:
    """Make the next probe after an outage due now.

    Raises:
        UnknownSubscriber: it has no subscription.
    """

    def work() -> None:
        broken = Case(When(breaker_failures__gt=0, then=Now()), default=F("breaker_until"))
        _update(name, {"breaker_until": broken})
        audit_record(actor=actor, action="subscriber.probed", target=f"subscriber:{name}")
        transaction.on_commit(partial(wake, "log"))

    run_in_transaction(work)


def subscription_limit(
    *, name: str, rate_limit: float | None, concurrency: int | None, keep_successes: bool, actor: str
) -> None:
    """Set the limits of a subscriber, in force from the next batch on in every process.

    Args:
        name: of the subscriber.
        rate_limit: events a second over all processes, with bursts of one second's worth; None: as it declares.
        concurrency: calls at a time over all processes; None: as it declares.
        keep_successes: keep an attempt of each event that goes through.
        actor: who asks for it.

    Raises:
        UnknownSubscriber: it has no subscription.
        InvalidLimit: a limit is not above zero, or too large.
    """
    if rate_limit is not None and not 0 < rate_limit <= 1_000_000:
        raise InvalidLimit("rate_limit: above 0, up to 1000000 events a second")
    if concurrency is not None and not 0 < concurrency <= LANES:
        raise InvalidLimit(f"concurrency: 1 to {LANES}")
    values = {"rate_limit": rate_limit, "concurrency": concurrency, "keep_successes": keep_successes}

    def work() -> None:
        _update(name, values)
        audit_record(actor=actor, action="subscriber.limited", target=f"subscriber:{name}", detail=values)
        transaction.on_commit(partial(wake, "log"))

    run_in_transaction(work)


def _update(name: str, values: dict[str, Any]) -> None:
    if not Subscription.objects.filter(name=name).update(**values):
        raise subscriber_unknown(name)
