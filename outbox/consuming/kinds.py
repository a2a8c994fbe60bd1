"""Kinds of failure among dead messages, counted within bounds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection

LISTED: Final = 100
COUNTED: Final = 10_000
WALKED: Final = 1_000

# Walks from one fingerprint to the next in the index (outbox_parked_kind): its cost follows the number of kinds, and
# of each kind at most 10,000 are counted.
KINDS_SQL: Final = """
WITH RECURSIVE kind (fingerprint, place) AS (
  (SELECT fingerprint, 1 FROM outbox_inbox_parked WHERE state = 'dead' ORDER BY fingerprint LIMIT 1)
  UNION ALL
  SELECT (SELECT p.fingerprint FROM outbox_inbox_parked p
           WHERE p.state = 'dead' AND p.fingerprint > k.fingerprint ORDER BY p.fingerprint LIMIT 1), k.place + 1
    FROM kind k WHERE k.fingerprint IS NOT NULL AND k.place < %(walked)s
)
SELECT k.fingerprint, c.count, c.first_seen, c.last_seen, n.id, n.consumer_group, n.topic, n.type, n.code, n.message
  FROM kind k
 CROSS JOIN LATERAL (SELECT count(*) AS count, min(created_at) AS first_seen, max(updated_at) AS last_seen
                       FROM (SELECT created_at, updated_at FROM outbox_inbox_parked
                              WHERE state = 'dead' AND fingerprint = k.fingerprint
                              ORDER BY id DESC LIMIT %(counted)s) x) c
 CROSS JOIN LATERAL (SELECT * FROM outbox_inbox_parked
                      WHERE state = 'dead' AND fingerprint = k.fingerprint ORDER BY id DESC LIMIT 1) n
 WHERE k.fingerprint IS NOT NULL AND (%(only)s::text IS NULL OR k.fingerprint = %(only)s)
 ORDER BY c.count DESC, c.last_seen DESC LIMIT %(listed)s
"""


@dataclass(frozen=True, slots=True)
class DeadKind:
    """One kind of failure: how often, since when, and the newest one."""

    fingerprint: str
    count: int
    first_seen: datetime
    last_seen: datetime
    sample_id: int
    group: str
    topic: str
    type: str
    code: str
    message: str


def dead_kinds(*, fingerprint: str | None = None) -> list[DeadKind]:
    """The kinds with the most dead messages, at most 100, or the one of that fingerprint."""
    with connection.cursor() as cursor:
        values = {"walked": WALKED, "counted": COUNTED, "listed": LISTED, "only": fingerprint}
        cursor.execute(KINDS_SQL, values)
        return [DeadKind(*row) for row in cursor.fetchall()]
