"""Publishing a range of the log to one subscriber again: its aggregates are sent back, and come forward in order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from django.db import connection, transaction

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.errors import DecisionRefused
from outbox.models import Retained, Subscription
from outbox.subscribers import subscriber_named
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

LARGEST_RANGE: Final = 1_000_000

# The lanes, locked as every decision locks them (see ``outbox.deciding``).
LOCK_SQL: Final = "SELECT 1 FROM outbox_lane WHERE subscription_id = %(name)s ORDER BY lane FOR UPDATE"
_RANGE: Final = """
  FROM outbox_lane n
  JOIN outbox_log l ON l.lane = n.lane AND l.position BETWEEN %(first)s AND least(%(last)s, n.cursor)
 CROSS JOIN LATERAL (SELECT * FROM outbox_event WHERE id = l.event_id LIMIT 1) e
 WHERE n.subscription_id = %(name)s AND (%(topics)s::text[] IS NULL OR e.topic = ANY (%(topics)s::text[]))
"""
COUNT_SQL: Final = f"""
SELECT count(*), count(DISTINCT (e.aggregate_type, e.aggregate_id)) {_RANGE}
"""
REPUBLISH_SQL: Final = f"""
INSERT INTO outbox_detour AS t (subscription_id, lane, aggregate_type, aggregate_id, next_sequence, due)
SELECT %(name)s, n.lane, e.aggregate_type, e.aggregate_id, min(e.sequence), clock_timestamp() {_RANGE}
 GROUP BY n.lane, e.aggregate_type, e.aggregate_id
ON CONFLICT (aggregate_type, aggregate_id, subscription_id) DO UPDATE
   SET next_sequence = least(t.next_sequence, excluded.next_sequence),
       due = CASE WHEN excluded.next_sequence < t.next_sequence THEN excluded.due ELSE t.due END
"""  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class Republished:
    """What is published again: events of the range, and aggregates that were sent back to their first one of it."""

    events: int
    aggregates: int


def log_republish(
    *, subscriber: str, first: int, last: int, actor: str, reason: str, apply: bool = True
) -> Republished:
    """Give a subscriber the events of a range of positions again, in order.

    Each aggregate with an event in the range goes back to its first one there and comes forward to where it was: what
    came after the range comes again too, so that no old state arrives last. What it has not been given yet is left out.

    Args:
        subscriber: its name.
        first: position.
        last: position, included; at most a million positions.
        actor: who asks for it.
        reason: why.
        apply: False only counts.

    Raises:
        UnknownSubscriber: none is listed.
        DecisionRefused: it cannot take events twice, or the range is empty, too long, or not retained any more.
    """
    one = subscriber_named(subscriber)
    if not one.may_repeat:
        raise DecisionRefused(
            f"{subscriber} handles each event once, in its transaction (takes_repeats is not set); it has other means."
        )
    if not 0 < first <= last or last - first >= LARGEST_RANGE:
        raise DecisionRefused(f"A range goes from a position to a later one, at most {LARGEST_RANGE:,} at a time.")
    topics = sorted(one.topics) if one.topics is not None else None
    values: dict[str, Any] = {"name": subscriber, "first": first, "last": last, "topics": topics}

    def work() -> Republished:
        with connection.cursor() as cursor:
            retained = Retained.objects.values_list("first_position", flat=True).first()
            if retained is not None and first < retained:
                raise DecisionRefused(f"The log is whole from position {retained} on; earlier events were removed.")
            if not Subscription.objects.filter(name=subscriber).exists():
                raise DecisionRefused(f"{subscriber} has not been set up yet; run a relay first.")
            if apply:
                cursor.execute(LOCK_SQL, values)
            cursor.execute(COUNT_SQL, values)
            found = Republished(*cursor.fetchone())
            if apply and found.events:
                cursor.execute(REPUBLISH_SQL, values)
                detail = {"first": first, "last": last, "events": found.events, "reason": reason[:1000]}
                audit_record(actor=actor, action="log.republished", target=f"subscriber:{subscriber}", detail=detail)
                transaction.on_commit(partial(wake, "log"))
        return found

    return run_in_transaction(work)
