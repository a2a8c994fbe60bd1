"""``sagas_due_once``: go on with sagas whose holder died, or that wait for another attempt; and remove old ones."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from django.db import connection, connections

from customers.sagas.conf import saga_settings
from customers.sagas.forgetting import stuck_creates_forget_once
from customers.sagas.lease import SagaLease, sagas_claim
from customers.sagas.running import saga_run
from customers.sync.conf import sync_settings
from dbresilience.transactions import run_in_transaction

_BUDGET: Final = 5.0
_AT_ONCE: Final = 1_000

OLD_SQL: Final = """
SELECT id FROM customers_saga
 WHERE finished_at < clock_timestamp() - make_interval(days => %(days)s) LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""
# Rows of creates that never reached the integration; their requests first.
STATES_SQL: Final = """
DELETE FROM customers_syncstate WHERE saga_id = ANY (%(sagas)s::uuid[]) AND customer_id IS NULL AND remote_id IS NULL
"""
STEPS_SQL: Final = "DELETE FROM customers_sagastep WHERE saga_id = ANY (%(sagas)s::uuid[])"
CONFLICTS_SQL: Final = """
DELETE FROM customers_conflict WHERE state_id IN (SELECT id FROM customers_syncstate
  WHERE saga_id = ANY (%(sagas)s::uuid[]) AND customer_id IS NULL AND remote_id IS NULL)
"""
REQUESTS_SQL: Final = """
DELETE FROM customers_syncrequest WHERE state_id IN (SELECT id FROM customers_syncstate
  WHERE saga_id = ANY (%(sagas)s::uuid[]) AND customer_id IS NULL AND remote_id IS NULL)
"""
SAGAS_SQL: Final = "DELETE FROM customers_saga WHERE id = ANY (%(sagas)s::uuid[])"


def sagas_due_once(*, budget: float = _BUDGET) -> int:
    """Go on with what is due now.

    Args:
        budget: seconds after which no further saga is taken.

    Returns:
        Sagas that were worked on; 0 when none was due.
    """
    ends, count = time.monotonic() + budget, 0
    while taken := sagas_claim(limit=sync_settings().concurrency, seconds=sync_settings().lease):
        if len(taken) == 1:
            saga_run(taken[0])
        else:
            # Nearly all of it is waiting for integrations; a thread each, no longer than this call.
            with ThreadPoolExecutor(max_workers=len(taken), thread_name_prefix="saga") as pool:
                list(pool.map(_in_thread, taken))
        count += len(taken)
        if time.monotonic() >= ends:
            break
    return count


def sagas_prune_once(*, budget: float = 60.0) -> int:
    """Remove those that ended longer ago than they are kept (``PROTECTED_RETENTION``), in batches; how many.

    Creates that are stuck for long forget whom they were about.
    """
    stuck_creates_forget_once()
    days, ends, count = saga_settings().retention, time.monotonic() + budget, 0
    while days and time.monotonic() < ends and (removed := run_in_transaction(lambda: _removed(days))):
        count += removed
    return count


def _in_thread(lease: SagaLease) -> None:
    try:
        saga_run(lease)
    finally:
        connections.close_all()


def _removed(days: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(OLD_SQL, {"days": days, "limit": _AT_ONCE})
        values: dict[str, Any] = {"sagas": [row[0] for row in cursor.fetchall()]}
        for statement in (STEPS_SQL, CONFLICTS_SQL, REQUESTS_SQL, STATES_SQL, SAGAS_SQL):
            cursor.execute(statement, values)
        return len(values["sagas"])
