"""Many customers in one statement, with their events in another: the set-based form of ``customer_create``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import connection
from django.utils import timezone
from uuid_utils.compat import uuid7

from customers.events import CREATED, Priority, customer_event
from customers.models import Customer
from customers.services import MUTABLE
from dbresilience.transactions import run_in_transaction
from outbox.publishing import publish_many

# Serves customers_import. Rows whose e-mail is taken, by an active customer or by an earlier row of the statement, are
# left out by the unique index itself, so a customer created meanwhile cannot slip in between. The rows come as one JSON
# text: arrays of a column each cost the client ten times as much to write.
INSERT_SQL: Final = """
INSERT INTO customers_customer (id, name, email, phone, address, metadata, version, created_at, updated_at)
SELECT id, name, email, phone, address, metadata, 1, %(now)s, %(now)s
  FROM json_to_recordset(%(rows)s::json)
       AS new (id uuid, name text, email text, phone text, address jsonb, metadata jsonb)
    ON CONFLICT (lower(email)) WHERE deleted_at IS NULL DO NOTHING
RETURNING id
"""


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
        created = _insert(customers)
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


def _insert(customers: Sequence[Customer]) -> set[UUID]:
    # By e-mail, so that two imports that share e-mails wait for each other in the same order and do not deadlock; the
    # sort is stable, so the earlier of two equal ones stays the earlier.
    ordered = sorted(customers, key=lambda customer: (customer.email or "").lower())
    rows = [
        {
            "id": customer.pk,
            "name": customer.name,
            "email": customer.email,
            "phone": customer.phone,
            "address": customer.address,
            "metadata": customer.metadata,
        }
        for customer in ordered
    ]
    parameters: dict[str, Any] = {"now": customers[0].created_at, "rows": orjson.dumps(rows).decode()}
    with connection.cursor() as cursor:
        cursor.execute(INSERT_SQL, parameters)
        return {row[0] for row in cursor.fetchall()}
