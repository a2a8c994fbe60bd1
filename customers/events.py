"""What the log says about customers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from customers.instants import instant_text
from customers.models import Customer
from outbox.events import NewEvent

TOPIC: Final = "customers"
AGGREGATE: Final = "customer"
CREATED: Final = "customer.created"
UPDATED: Final = "customer.updated"
DELETED: Final = "customer.deleted"
ERASED: Final = "customer.erased"

_FACTS: Final = ("customer_id", "version", "deleted", "changed", "updated_at")

Priority = Literal["interactive", "bulk"]


def customer_event(
    customer: Customer, *, type: str, changed: Sequence[str], origin: str, priority: Priority
) -> NewEvent:
    """The event of a change that was just written.

    Args:
        customer: as it is after the change.
        type: one of the constants of this module.
        changed: names of the fields that differ from before.
        origin: where the change came from: api, console, import, or the name of an integration.
        priority: how soon integrations should hear of it.
    """
    payload = customer_payload(customer, changed)
    return NewEvent(
        topic=TOPIC,
        type=type,
        aggregate_type=AGGREGATE,
        aggregate_id=str(customer.pk),
        payload=customer_payload_erased(payload) if type == ERASED else payload,
        origin=origin,
        headers={"priority": priority},
    )


def customer_payload(customer: Customer, changed: Sequence[str]) -> dict[str, Any]:
    """The payload: the whole customer, so that a consumer needs no earlier event."""
    return {
        "customer_id": str(customer.pk),
        "email": customer.email,
        "name": customer.name,
        "phone": customer.phone,
        "address": customer.address or None,
        "metadata": customer.metadata,
        "version": customer.version,
        "deleted": customer.deleted_at is not None,
        "changed": list(changed),
        "updated_at": instant_text(customer.updated_at),
    }


def customer_payload_erased(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a payload when its customer is erased: which customer, which change, when. Again, the same.

    The shape stays, so that consumers and read models read it as any other.
    """
    kept = {name: payload[name] for name in _FACTS if name in payload}
    return {
        **kept,
        "email": None,
        "name": None,
        "phone": None,
        "address": None,
        "metadata": {},
        "erased": True,
    }
