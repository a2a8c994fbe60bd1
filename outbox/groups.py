"""Failures grouped by kind: what went wrong how often, since when, and one of each to look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection

LISTED: Final = 100
COUNTED: Final = 10_000
HOURS: Final = 24

# Walks from one fingerprint to the next in the index (outbox_delivery_kind), so that its cost follows the number of
# kinds and not of failures; of each kind at most 10,000 are counted.
GROUPS_SQL: Final = """
WITH RECURSIVE kind (fingerprint, place) AS (
  (SELECT fingerprint, 1 FROM outbox_delivery WHERE state IN ('retrying', 'dead') ORDER BY fingerprint LIMIT 1)
  UNION ALL
  SELECT (SELECT d.fingerprint FROM outbox_delivery d
           WHERE d.state IN ('retrying', 'dead') AND d.fingerprint > k.fingerprint ORDER BY d.fingerprint LIMIT 1),
         k.place + 1
    FROM kind k WHERE k.fingerprint IS NOT NULL AND k.place < %(walked)s
)
SELECT k.fingerprint, c.count, c.dead, c.first_seen, c.last_seen, n.id, n.event_id, n.subscription_id, n.topic, n.type,
       n.error_class, n.code, n.message
  FROM kind k
 CROSS JOIN LATERAL (SELECT count(*) AS count, count(*) FILTER (WHERE state = 'dead') AS dead,
                            min(created_at) AS first_seen, max(updated_at) AS last_seen
                       FROM (SELECT state, created_at, updated_at FROM outbox_delivery
                              WHERE state IN ('retrying', 'dead') AND fingerprint = k.fingerprint
                              ORDER BY id DESC LIMIT %(counted)s) x) c
 CROSS JOIN LATERAL (SELECT * FROM outbox_delivery
                      WHERE state IN ('retrying', 'dead') AND fingerprint = k.fingerprint ORDER BY id DESC LIMIT 1) n
 WHERE k.fingerprint IS NOT NULL AND (%(subscriber)s::text IS NULL OR n.subscription_id = %(subscriber)s)
   AND (%(only)s::text IS NULL OR k.fingerprint = %(only)s)
 ORDER BY c.count DESC, c.last_seen DESC LIMIT %(listed)s
"""
# By hour, from 23 hours ago to now, of the newest 10,000 of each kind.
HOURS_SQL: Final = """
SELECT f.fingerprint, h.ago, count(*)
  FROM unnest(%(fingerprints)s::text[]) AS f (fingerprint)
 CROSS JOIN LATERAL (SELECT floor(EXTRACT(epoch FROM clock_timestamp() - created_at) / 3600)::int AS ago
                       FROM (SELECT created_at FROM outbox_delivery
                              WHERE state IN ('retrying', 'dead') AND fingerprint = f.fingerprint
                              ORDER BY id DESC LIMIT %(counted)s) x) h
 WHERE h.ago < %(hours)s GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """One kind of failure among what is open.

    Attributes:
        fingerprint: the kind.
        count: open failures; 10,000 stands for as many or more.
        dead: of those, the dead ones.
        first_seen: when the oldest of them first failed.
        last_seen: when one of them last failed.
        delivery_id, event_id, subscriber, topic, type, error_class, code, message: of the newest one.
        hours: how many first failed in each of the last 24 hours, the oldest hour first.
    """

    fingerprint: str
    count: int
    dead: int
    first_seen: datetime
    last_seen: datetime
    delivery_id: int
    event_id: int
    subscriber: str
    topic: str
    type: str
    error_class: str
    code: str
    message: str
    hours: tuple[int, ...]


def failure_groups(*, subscriber: str | None = None, fingerprint: str | None = None) -> list[FailureGroup]:
    """The kinds of failure with the most open deliveries, at most 100.

    Args:
        subscriber: only of this one.
        fingerprint: only this kind.
    """
    values = {
        "subscriber": subscriber,
        "only": fingerprint,
        "listed": LISTED,
        "counted": COUNTED,
        # As many kinds as anybody can have made by hand; a message full of unforeseen words must not cost for ever.
        "walked": 1_000,
    }
    with connection.cursor() as cursor:
        cursor.execute(GROUPS_SQL, values)
        rows = cursor.fetchall()
        hours: dict[str, list[int]] = {row[0]: [0] * HOURS for row in rows}
        cursor.execute(HOURS_SQL, {"fingerprints": list(hours), "counted": COUNTED, "hours": HOURS})
        for name, ago, count in cursor.fetchall():
            hours[name][HOURS - 1 - max(0, ago)] = count
    return [FailureGroup(*(*row, tuple(hours[row[0]]))) for row in rows]
