"""Decisions of people about deliveries: retry, skip.

How order is kept, whatever a relay does meanwhile. A decision never delivers anything. It moves a detour: back to an
event, or past one; the owner of the lane delivers, as ever, alone and in order. So nothing can overtake unless a move
and the owner's own work get into each other, and they cannot:

1. A decision locks the rows of the lanes first, in order, and so does every settle. One sees the other's work whole.
2. A decision that falls between an owner's start of a detour and its settle is found by the settle, which compares
   where the detour is with where it was: sent back, everything comes again from there; sent past, a failure of what was
   skipped is not recorded. Neither undoes the other.
3. A detour that a decision makes (the aggregate was on the log) begins when the owner starts it, which is when it stops
   giving that aggregate new events; until then new events go out as if the decision had come after them. The same owner
   does both, one after the other. After a change of owner the new one reads all detours before its first event.
4. A detour ends when it has reached the lane's cursor, so the last event that arrives is the newest one.

An attempt that is on its way when its event is skipped may still arrive; nothing can call it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog
from django.db import connection, transaction

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.selecting import DeliveryFilter, deliveries_choose
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

AT_ONCE: Final = 1_000
NAMED_IN_AUDIT: Final = 100

# First statement of each decision: its lanes, in the order in which everybody locks them.
LOCK_SQL: Final = """
SELECT 1 FROM outbox_lane l
 WHERE (l.subscription_id, l.lane) IN (SELECT d.subscription_id, d.lane FROM outbox_delivery d
                                        WHERE d.id = ANY (%(ids)s::bigint[]))
 ORDER BY l.subscription_id, l.lane FOR UPDATE OF l
"""
# Those that are not open any more, and those whose aggregate waits at an earlier event, are left alone. One that its
# aggregate has passed sends the aggregate back: what came after it comes again, in order.
RETRY_SQL: Final = """
WITH retried AS (
  UPDATE outbox_delivery d
     SET state = 'retrying', attempts_before = attempts, next_attempt_at = clock_timestamp(),
         updated_at = clock_timestamp()
   WHERE id = ANY (%(ids)s::bigint[]) AND state IN ('retrying', 'dead')
     AND NOT EXISTS (SELECT 1 FROM outbox_detour t
                      WHERE t.aggregate_type = d.aggregate_type AND t.aggregate_id = d.aggregate_id
                        AND t.subscription_id = d.subscription_id AND t.next_sequence < d.sequence)
  RETURNING id, subscription_id, lane, aggregate_type, aggregate_id, sequence
), sent AS (
  INSERT INTO outbox_detour AS t (subscription_id, lane, aggregate_type, aggregate_id, next_sequence, due)
  SELECT subscription_id, lane, aggregate_type, aggregate_id, min(sequence), clock_timestamp() FROM retried
   GROUP BY 1, 2, 3, 4
  ON CONFLICT (aggregate_type, aggregate_id, subscription_id) DO UPDATE
     SET next_sequence = least(t.next_sequence, excluded.next_sequence), due = excluded.due
)
SELECT id FROM retried ORDER BY id
"""
# What is given up is counted with the decision; by topic in one order, so that two of them never wait in a circle.
SKIP_SQL: Final = """
WITH skipped AS (
  UPDATE outbox_delivery d
     SET state = 'resolved', resolution = %(resolution)s, resolved_by = %(actor)s, resolved_reason = %(reason)s,
         next_attempt_at = NULL, resolved_at = clock_timestamp(), updated_at = clock_timestamp()
   WHERE id = ANY (%(ids)s::bigint[]) AND state IN ('retrying', 'dead')
     AND NOT EXISTS (SELECT 1 FROM outbox_detour t
                      WHERE t.aggregate_type = d.aggregate_type AND t.aggregate_id = d.aggregate_id
                        AND t.subscription_id = d.subscription_id AND t.next_sequence < d.sequence)
  RETURNING id, subscription_id, topic, aggregate_type, aggregate_id, sequence
), counted AS (
  INSERT INTO outbox_topic_figure AS f (subscription_id, topic, skipped, replaced)
  SELECT subscription_id, topic, CASE WHEN %(resolution)s = 'skipped' THEN count(*) ELSE 0 END,
         CASE WHEN %(resolution)s = 'replaced' THEN count(*) ELSE 0 END
    FROM skipped GROUP BY 1, 2 ORDER BY 1, 2
  ON CONFLICT (subscription_id, topic) DO UPDATE
     SET skipped = f.skipped + excluded.skipped, replaced = f.replaced + excluded.replaced
), moved AS (
  UPDATE outbox_detour t SET next_sequence = s.sequence + 1, due = clock_timestamp()
    FROM skipped s
   WHERE t.subscription_id = s.subscription_id AND t.aggregate_type = s.aggregate_type
     AND t.aggregate_id = s.aggregate_id AND t.next_sequence = s.sequence
)
SELECT id FROM skipped ORDER BY id
"""


def deliveries_retry(*, ids: Sequence[int], actor: str, reason: str = "") -> list[int]:
    """Try deliveries again, now and with a whole ladder before them.

    Args:
        ids: at most 1,000.
        actor: who asks for it.
        reason: why.

    Returns:
        Those that will be tried again; the others are not open, or wait behind an earlier event of their aggregate.
    """

    def work() -> list[int]:
        retried = _decide(RETRY_SQL, ids, {})
        if retried:
            _audit("retried", retried, actor, reason)
            transaction.on_commit(partial(wake, "log"))
        return retried

    return run_in_transaction(work)


def deliveries_skip(*, ids: Sequence[int], actor: str, reason: str) -> list[int]:
    """Give deliveries up: their aggregates go on without them, and they stay on record as skipped.

    Args:
        ids: at most 1,000.
        actor: who asks for it.
        reason: why.

    Returns:
        Those that were skipped; the others are not open, or wait behind an earlier event of their aggregate.
    """

    def work() -> list[int]:
        skipped = deliveries_resolve(ids, "skipped", actor, reason)
        if skipped:
            _audit("skipped", skipped, actor, reason)
        return skipped

    return run_in_transaction(work)


def deliveries_resolve(ids: Sequence[int], resolution: str, actor: str, reason: str) -> list[int]:
    """Resolve deliveries without delivering them, in the current transaction; without an audit entry."""
    resolved = _decide(SKIP_SQL, ids, {"resolution": resolution, "actor": actor[:200], "reason": reason[:1000]})
    if resolved:
        transaction.on_commit(partial(wake, "log"))
    return resolved


def deliveries_retry_all(*, chosen: DeliveryFilter, actor: str, reason: str = "", most: int | None = None) -> int:
    """Try everything again that a filter matches, a thousand in each transaction; how many.

    Args:
        chosen: the filter; one with a fingerprint, ids or events costs what it matches.
        actor: who asks for it.
        reason: why.
        most: stop after so many.
    """
    done, after = 0, 0
    while most is None or done < most:
        ids = deliveries_choose(chosen, most=AT_ONCE if most is None else min(AT_ONCE, most - done), after=after)
        if not ids:
            break
        after = ids[-1]
        done += len(deliveries_retry(ids=ids, actor=actor, reason=reason))
    return done


def _decide(sql: str, ids: Sequence[int], values: Mapping[str, Any]) -> list[int]:
    if len(ids) > AT_ONCE:
        raise ValueError(f"{len(ids)} deliveries at once; {AT_ONCE} is the most.")
    with connection.cursor() as cursor:
        cursor.execute(LOCK_SQL, {"ids": list(ids)})
        cursor.execute(sql, {"ids": list(ids), **values})
        return [row[0] for row in cursor.fetchall()]


def _audit(what: str, ids: list[int], actor: str, reason: str) -> None:
    if len(ids) == 1:
        detail: dict[str, object] = {"reason": reason[:1000]}
        audit_record(actor=actor, action=f"delivery.{what}", target=f"delivery:{ids[0]}", detail=detail)
    else:
        detail = {"reason": reason[:1000], "count": len(ids), "ids": ids[:NAMED_IN_AUDIT]}
        audit_record(actor=actor, action=f"deliveries.{what}", detail=detail)
