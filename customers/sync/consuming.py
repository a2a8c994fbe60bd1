"""The news of changed customers through Kafka (``SYNC_ROUTE=kafka``): the same mark as straight from the log.

``manage.py kafka_worker --group sync`` runs it. A change of the route loses nothing: whoever begins, begins where it
was or at the first message, and a customer that is looked at once more is in sync already.
"""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from customers.events import AGGREGATE, TOPIC
from customers.sync.pokes import Poke, customers_poke, priority_of
from outbox.consuming.handlers import handles
from outbox.consuming.messages import Message
from outbox.errors import PermanentError
from outbox.wakeup import wake

GROUP = "sync"


@handles(TOPIC, group=GROUP, takes_late=True)
def customer_changed(message: Message) -> None:
    """Mark the sync states of the customer."""
    if message.aggregate_type != AGGREGATE:
        return
    try:
        customer_id = UUID(message.aggregate_id)
    except ValueError as exc:
        raise PermanentError("The id of the customer is no UUID.", code="bad_customer_id") from exc
    priority = priority_of(message.headers)
    customers_poke([Poke(customer_id, message.origin, priority, message.correlation_id, message.traceparent)])
    transaction.on_commit(_wake)


def _wake() -> None:
    wake("sync")
