"""Many customers in one statement, with their events in another: the set-based form of ``customer_create``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.utils import timezone
from uuid_utils.compat import uuid7

from customers.changing import MUTABLE
from customers.events import CREATED, Priority, customer_event
from customers.models import Customer
from dbresilience.transactions import run_in_transaction
from outbox.publishing import publish_many


def customers_import(
    *, rows: Sequence[dict[str, Any]], origin: str = "import", priority: Priority = "bulk"
) -> list[UUID | None]:
    """Create customers of values that are valid, in one transaction with their events.

    Args:
        rows: fields by name, as ``customer_values`` gives them.
        origin: where they came from.
        priority: how soon integrations should hear of them.

    Returns:
        For each row the id of its customer, or None when its e-mail was taken. Of two rows with the same e-mail the
        earlier one has it.
    """

    if not rows:
        return []

    def work() -> list[UUID | None]:
        now = timezone.now()
        customers = [Customer(**row, id=uuid7(), created_at=now, updated_at=now) for row in rows]
        created = Customer.objects.insert_unless_taken(customers)
        publish_many(
            customer_event(
                customer,
                type=CREATED,
                changed=[field for field in MUTABLE if getattr(customer, field)],
                origin=origin,
                priority=priority,
            )
            for customer in customers
            if customer.pk in created
        )
        return [customer.pk if customer.pk in created else None for customer in customers]

    return run_in_transaction(work)
