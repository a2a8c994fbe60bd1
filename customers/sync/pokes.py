"""The log's subscriber that marks sync states dirty: exactly once, because it works in the settle transaction.

It says "look again" and nothing else, so it coalesces by itself: a thousand events of one customer are one dirty row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final
from uuid import UUID

from django.db import connection

from customers.events import AGGREGATE, TOPIC
from customers.integrations import integrations
from customers.models import Priority
from operations.correlation import ID_LENGTH
from operations.tracing import trace_valid
from outbox.events import Event
from outbox.subscribers import Deadline, Failure, Subscriber
from outbox.wakeup import wake

# One row per customer of the batch, inserted or marked, in the order of customers so that two batches queue and do not
# deadlock. A row under a lease keeps its waiting time: poke_count alone tells the holder to leave it dirty. A row that
# waits for its next attempt is due at once when a person or a webhook asks for it, but not for a bulk poke.
POKE_SQL: Final = """
INSERT INTO customers_syncstate AS s
       (integration, account, livemode, customer_id, priority, dirty_at, poke_count, next_attempt_at,
        correlation_id, traceparent)
SELECT %(integration)s, %(account)s, %(livemode)s, poked.customer_id, poked.priority,
       clock_timestamp(), 1, clock_timestamp(), poked.correlation_id, poked.traceparent
  FROM unnest(%(customers)s::uuid[], %(priorities)s::smallint[], %(correlations)s::text[], %(traces)s::text[])
    AS poked (customer_id, priority, correlation_id, traceparent)
 ORDER BY poked.customer_id
ON CONFLICT (integration, customer_id) DO UPDATE SET
       priority = CASE WHEN s.dirty_at IS NULL THEN excluded.priority ELSE LEAST(s.priority, excluded.priority) END,
       dirty_at = COALESCE(s.dirty_at, excluded.dirty_at),
       poke_count = s.poke_count + 1,
       correlation_id = excluded.correlation_id, traceparent = excluded.traceparent,
       next_attempt_at = CASE
           WHEN s.lease_until > clock_timestamp() THEN s.next_attempt_at
           WHEN s.dirty_at IS NULL THEN excluded.next_attempt_at
           WHEN excluded.priority < 2 THEN LEAST(s.next_attempt_at, excluded.next_attempt_at)
           ELSE s.next_attempt_at END,
       status = CASE WHEN s.status IN ('in_sync', 'failed') THEN 'pending' ELSE s.status END
"""


class SyncPokes(Subscriber):
    """Marks the sync states of changed customers, in every integration but the one that the change came from."""

    name: ClassVar[str] = "sync"
    topics: ClassVar[frozenset[str] | None] = frozenset({TOPIC})
    transactional: ClassVar[bool] = True

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        """Mark the rows, in the transaction of the cursor."""
        for integration in integrations().values():
            poked: dict[UUID, int] = {}
            causes: dict[UUID, tuple[str, str]] = {}
            for event in events:
                # What came from there is known there, and the base says so.
                if event.aggregate_type == AGGREGATE and event.origin != integration.name:
                    customer_id, priority = UUID(event.aggregate_id), _priority(event)
                    poked[customer_id] = min(priority, poked.get(customer_id, priority))
                    causes[customer_id] = _cause(event)
            if poked:
                with connection.cursor() as cursor:
                    cursor.execute(
                        POKE_SQL,
                        {
                            "integration": integration.name,
                            "account": integration.account,
                            "livemode": integration.livemode,
                            "customers": list(poked),
                            "priorities": list(poked.values()),
                            "correlations": [causes[one][0] for one in poked],
                            "traces": [causes[one][1] for one in poked],
                        },
                    )
        return []

    def after_commit(self, events: Sequence[Event]) -> None:
        """Wake whoever synchronises."""
        wake("sync")


def _priority(event: Event) -> int:
    return Priority.BULK if event.headers.get("priority") == "bulk" else Priority.INTERACTIVE


def _cause(event: Event) -> tuple[str, str]:
    """Correlation id and trace of the change: those of the sync that it asks for."""
    return event.correlation_id[:ID_LENGTH], trace_valid(event.traceparent)
