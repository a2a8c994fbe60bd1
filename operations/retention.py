"""How long this app's records are kept, and their removal in small batches."""

from __future__ import annotations

import time
from typing import Any, Final

from django.db import connection

from dbresilience.transactions import run_in_transaction
from operations.conf import retention_settings

AT_ONCE: Final = 2_000

# Items first, so that no statement removes more than a batch: an operation may have a million. Each by an index: the
# state of operations that have ended, the order of items.
ITEMS_SQL: Final = """
DELETE FROM operations_item WHERE id IN (
  SELECT i.id FROM operations_operation o CROSS JOIN LATERAL (
           SELECT id FROM operations_item WHERE operation_id = o.id ORDER BY id LIMIT %(limit)s) i
   WHERE o.state IN ('completed', 'cancelled', 'failed')
     AND o.finished_at < (SELECT clock_timestamp() - make_interval(days => %(days)s))
   LIMIT %(limit)s)
"""
OPERATIONS_SQL: Final = """
DELETE FROM operations_operation WHERE id IN (
  SELECT o.id FROM operations_operation o
   WHERE o.state IN ('completed', 'cancelled', 'failed')
     AND o.finished_at < (SELECT clock_timestamp() - make_interval(days => %(days)s))
     AND NOT EXISTS (SELECT 1 FROM operations_item i WHERE i.operation_id = o.id)
   LIMIT %(limit)s)
"""
NOTICES_SQL: Final = """
DELETE FROM operations_alertnotice WHERE alert_id IN (
  SELECT id FROM operations_alert
   WHERE ended_at < (SELECT clock_timestamp() - make_interval(days => %(days)s)) LIMIT %(limit)s)
"""
ALERTS_SQL: Final = """
DELETE FROM operations_alert WHERE id IN (
  SELECT a.id FROM operations_alert a
   WHERE a.ended_at < (SELECT clock_timestamp() - make_interval(days => %(days)s))
     AND NOT EXISTS (SELECT 1 FROM operations_alertnotice n WHERE n.alert_id = a.id) LIMIT %(limit)s)
"""
# The oldest ids first: the trail is in the order of time, so the scan ends with the batch.
AUDIT_SQL: Final = """
DELETE FROM operations_auditentry WHERE id IN (
  SELECT id FROM (SELECT id, at FROM operations_auditentry ORDER BY id LIMIT %(limit)s) oldest
   WHERE at < (SELECT clock_timestamp() - make_interval(days => %(days)s)))
"""
# What the trigger on the trail asks for; it holds for one transaction.
ALLOW_SQL: Final = "SET LOCAL zenskar.audit_retention = 'on'"


def records_prune_once(*, budget: float = 60.0) -> int:
    """Remove what is past its time, a batch in each transaction; how many rows.

    Args:
        budget: seconds after which no further batch is begun.

    Raises:
        django.db.Error: the database is in trouble.
    """
    config = retention_settings()
    ends, removed = time.monotonic() + budget, 0
    for days, statements, allow in (
        (config.operations, (ITEMS_SQL, OPERATIONS_SQL), ""),
        (config.alerts, (NOTICES_SQL, ALERTS_SQL), ""),
        (config.audit, (AUDIT_SQL,), ALLOW_SQL),
    ):
        for statement in statements if days else ():
            while time.monotonic() < ends and (count := _remove(statement, days, allow)):
                removed += count
    return removed


def _remove(statement: str, days: int, allow: str) -> int:
    values: dict[str, Any] = {"days": days, "limit": AT_ONCE}

    def work() -> int:
        with connection.cursor() as cursor:
            if allow:
                cursor.execute(allow)
            cursor.execute(statement, values)
            return int(cursor.rowcount)

    return run_in_transaction(work)
