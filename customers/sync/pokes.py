"""The log's subscriber that marks sync states dirty: exactly once, because it works in the settle transaction.

It says "look again" and nothing else, so it coalesces by itself: a thousand events of one customer are one dirty row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final, NamedTuple
from uuid import UUID

from django.db import connection

from customers.events import AGGREGATE, TOPIC
from customers.integrations import Integration, integrations
from customers.models import Priority
from operations.correlation import ID_LENGTH
from operations.tracing import trace_valid
from outbox.events import Event
from outbox.subscribers import Deadline, Failure, Subscriber
from outbox.wakeup import wake

# One row per customer of the batch, inserted or marked, in the order of customers so that two batches queue and do not
# deadlock. A row under a lease keeps its waiting time: poke_count alone tells the holder to leave it dirty. A row that
# waits for its next attempt is due at once when a person or a webhook asks for it, but not for a bulk poke. What failed
# for good may succeed with the values of now: if it fails again, that is a new failure.
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
       status = CASE WHEN s.status IN ('in_sync', 'failed') THEN 'pending' ELSE s.status END,
       failing_since = CASE WHEN s.status = 'failed' THEN NULL ELSE s.failing_since END
"""


class Poke(NamedTuple):
    """News that a customer changed.

    Attributes:
        customer_id: which.
        origin: where the change came from.
        priority: one of ``Priority``.
        correlation_id, traceparent: of the change; those of the sync that it asks for.
    """

    customer_id: UUID
    origin: str
    priority: int
    correlation_id: str = ""
    traceparent: str = ""


class SyncPokes(Subscriber):
    """Marks the sync states of changed customers, straight from the log (``SYNC_ROUTE=log``)."""

    name: ClassVar[str] = "sync"
    topics: ClassVar[frozenset[str] | None] = frozenset({TOPIC})
    transactional: ClassVar[bool] = True

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        """Mark the rows, in the transaction of the cursor."""
        customers_poke(
            Poke(
                UUID(event.aggregate_id),
                event.origin,
                priority_of(event.headers),
                event.correlation_id,
                event.traceparent,
            )
            for event in events
            if event.aggregate_type == AGGREGATE
        )
        return []

    def after_commit(self, events: Sequence[Event]) -> None:
        """Wake whoever synchronises."""
        wake("sync")


def customers_poke(pokes: Iterable[Poke]) -> None:
    """Mark the sync states of changed customers dirty, in the transaction under way.

    Whoever carries the news, from the log or through Kafka, calls this. In each integration but the one that a change
    came from: what came from there is known there, and the base says so.
    """
    news = list(pokes)
    for integration in integrations().values():
        integration_poke(integration, [poke for poke in news if poke.origin != integration.name])


def integration_poke(integration: Integration, pokes: Iterable[Poke]) -> None:
    """Mark the sync states of customers in one integration dirty, in the transaction under way."""
    poked: dict[UUID, int] = {}
    causes: dict[UUID, Poke] = {}
    for poke in pokes:
        poked[poke.customer_id] = min(poke.priority, poked.get(poke.customer_id, poke.priority))
        causes[poke.customer_id] = poke
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
                    "correlations": [causes[one].correlation_id[:ID_LENGTH] for one in poked],
                    "traces": [trace_valid(causes[one].traceparent) for one in poked],
                },
            )


def priority_of(headers: Mapping[str, str]) -> int:
    """How urgent a change is, as its event says."""
    return Priority.BULK if headers.get("priority") == "bulk" else Priority.INTERACTIVE
