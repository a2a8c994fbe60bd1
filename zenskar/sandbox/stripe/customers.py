"""Customers: the field table, and what create, retrieve, update, delete, list and search do with it.

Sources: docs.stripe.com/api/customers; maximal lengths from Stripe's OpenAPI description.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from zenskar.sandbox.stripe.calls import Call
from zenskar.sandbox.stripe.errors import resource_missing
from zenskar.sandbox.stripe.fields import (
    Choice,
    Email,
    Field,
    Hash,
    Integer,
    ListOf,
    Metadata,
    Table,
    Text,
    Unsupported,
    metadata_merged,
)
from zenskar.sandbox.stripe.listing import LIST_FIELDS, page_of

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

ADDRESS_KEYS = ("city", "country", "line1", "line2", "postal_code", "state")
ADDRESS: Table = {key: Text() for key in ADDRESS_KEYS}
SHIPPING: Table = {
    "address": Hash(table=ADDRESS, required=True, unset=False),
    "name": Text(required=True, unset=False),
    "phone": Text(),
}
INVOICE_SETTINGS: Table = {
    "custom_fields": ListOf(
        item=Hash(table={"name": Text(max=40, required=True), "value": Text(max=140, required=True)}, unset=False),
        unset=True,
        maximum=4,
    ),
    "default_payment_method": Unsupported(),
    "footer": Text(),
    "rendering_options": Hash(
        table={
            "amount_tax_display": Choice(choices=("exclude_tax", "include_inclusive_tax"), unset=True),
            "template": Text(),
        }
    ),
}
WRITABLE: dict[str, Field] = {
    "address": Hash(table=ADDRESS),
    "balance": Integer(),
    "business_name": Text(max=150),
    "description": Text(),
    "email": Email(),
    "expand": ListOf(),
    "individual_name": Text(max=150),
    "invoice_prefix": Text(max=12, unset=False, pattern=r"[A-Z0-9]{1,12}"),
    "invoice_settings": Hash(table=INVOICE_SETTINGS, unset=False),
    "metadata": Metadata(),
    "name": Text(max=256),
    "next_invoice_sequence": Integer(minimum=1),
    "phone": Text(max=20),
    "preferred_locales": ListOf(),
    "shipping": Hash(table=SHIPPING),
    "tax_exempt": Choice(choices=("none", "exempt", "reverse"), unset=True),
    "cash_balance": Unsupported(),
    "source": Unsupported(),
    "tax": Unsupported(),
    "validate": Unsupported(),
}
CREATE: Table = {
    **WRITABLE,
    "payment_method": Unsupported(),
    "tax_id_data": Unsupported(),
    "test_clock": Unsupported(),
}
UPDATE: Table = {**WRITABLE, "default_source": Unsupported()}
RETRIEVE: Table = {"expand": ListOf()}
LIST: Table = {**LIST_FIELDS, "email": Text(max=512, unset=False), "test_clock": Unsupported()}
SEARCH: Table = {
    "query": Text(required=True, unset=False),
    "limit": Integer(minimum=1, maximum=100),
    "page": Text(),
    "expand": ListOf(),
}
_NEVER_NULL = {"balance", "metadata", "preferred_locales", "next_invoice_sequence"}


def customer_create(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    customer = customer_blank(sandbox)
    changes = _changes(sandbox, customer, call.params)
    customer.update(changes)
    if "name" not in call.params:
        # Since 2025-09-30 the name follows the business name or else the individual name.
        customer["name"] = customer.get("business_name") or customer.get("individual_name")
    sandbox.customer_store(customer)
    sandbox.event_publish("customer.created", customer, call=call)
    return customer


def customer_blank(sandbox: StripeSandbox) -> dict[str, Any]:
    """A customer about whom nothing is known yet."""
    return {
        "id": sandbox.ids.new("cus"),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": sandbox.clock.seconds(),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "email": None,
        "invoice_prefix": sandbox.ids.invoice_prefix(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def customer_retrieve(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    customer = sandbox.store.customers.get(call.id)
    if customer is None:
        raise resource_missing("customer", call.id)
    return deleted_body(call.id) if customer.get("deleted") else customer


def customer_update(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    present = customer_present(sandbox, call.id)
    customer = {**present, **_changes(sandbox, present, call.params)}
    if customer != present:
        sandbox.customer_store(customer)
        previous = changed_attributes(present, customer)
        sandbox.event_publish("customer.updated", customer, previous=previous, call=call)
    return customer


def customer_delete(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    """Irreversible. Cancels the customer's subscriptions; what remains can be retrieved as deleted."""
    customer = customer_present(sandbox, call.id)
    sandbox.subscriptions_cancel(customer_id=call.id, call=call)
    sandbox.customer_store({**customer, "deleted": True})
    # Stripe's event carries the customer as it was, without a flag.
    sandbox.event_publish("customer.deleted", customer, call=call)
    return deleted_body(call.id)


def customer_list(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    email = call.params.get("email")

    def keep(customer: dict[str, Any]) -> bool:
        return not customer.get("deleted") and (email is None or customer["email"] == email)

    return page_of(
        sandbox.store.customers,
        kind="customer",
        url="/v1/customers",
        params=call.params,
        keep=keep,
        render=lambda customer: customer,
    )


def customer_search(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    return sandbox.search.page(
        query=call.params["query"], limit=call.params.get("limit", 10), page=call.params.get("page")
    )


def customer_present(sandbox: StripeSandbox, id: str) -> dict[str, Any]:
    """The customer unless it is missing or deleted: Stripe answers both alike to whoever wants to change it."""
    customer = sandbox.store.customers.get(id)
    if customer is None or customer.get("deleted"):
        raise resource_missing("customer", id)
    return customer


def deleted_body(id: str) -> dict[str, Any]:
    return {"id": id, "object": "customer", "deleted": True}


def changed_attributes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """``previous_attributes`` of an event: old values of what changed; of an object, only its changed keys."""
    previous: dict[str, Any] = {}
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            previous[name] = changed_attributes(old, new)
        else:
            previous[name] = copy.deepcopy(old)
    return previous


def _changes(sandbox: StripeSandbox, present: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in params.items():
        if name == "expand":
            continue
        if name == "metadata":
            changes[name] = metadata_merged(present["metadata"], value)
        elif name == "address":
            changes[name] = _address(sandbox, present["address"], value)
        elif name == "shipping" and value is not None:
            shipping = {"carrier": None, "phone": None, "tracking_number": None, **value}
            shipping["address"] = _address(sandbox, None, value["address"])
            changes[name] = shipping
        elif name == "invoice_settings":
            changes[name] = {**present["invoice_settings"], **value}
        elif name == "tax_exempt":
            changes[name] = value or "none"
        else:
            changes[name] = value
    return changes


def _address(
    sandbox: StripeSandbox, present: dict[str, Any] | None, value: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Stripe does not document whether an address is merged or replaced: correct clients send all of its keys."""
    if value is None:
        return None
    base = dict.fromkeys(ADDRESS_KEYS)
    if sandbox.address_merges and present:
        base.update(present)
    return {**base, **value}
