"""Subscriptions, as far as deleting a customer needs them: create, retrieve, list, cancel.

Source: docs.stripe.com/api/subscriptions. Prices are accepted by name; nothing is invoiced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zenskar.sandbox.stripe.calls import Call
from zenskar.sandbox.stripe.errors import StripeError, resource_missing
from zenskar.sandbox.stripe.fields import Choice, Hash, Integer, ListOf, Metadata, Table, Text, metadata_merged
from zenskar.sandbox.stripe.listing import LIST_FIELDS, page_of

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

STATUSES = ("active", "past_due", "unpaid", "canceled", "incomplete", "incomplete_expired", "trialing", "paused")
ENDED = frozenset({"canceled", "incomplete_expired"})
MONTH = 30 * 24 * 3600
CREATE: Table = {
    "customer": Text(required=True, unset=False),
    "items": ListOf(
        item=Hash(table={"price": Text(required=True, unset=False), "quantity": Integer(minimum=0)}, unset=False),
        required=True,
        maximum=20,
    ),
    "description": Text(max=500),
    "metadata": Metadata(),
    "trial_period_days": Integer(minimum=0, maximum=730),
    "expand": ListOf(),
}
RETRIEVE: Table = {"expand": ListOf()}
CANCEL: Table = {"expand": ListOf()}
LIST: Table = {
    **LIST_FIELDS,
    "customer": Text(unset=False),
    "status": Choice(choices=(*STATUSES, "ended", "all")),
}


def subscription_create(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    customer = sandbox.store.customers.get(call.params["customer"])
    if customer is None or customer.get("deleted"):
        raise resource_missing("customer", call.params["customer"], param="customer", status=400)
    if not call.params["items"]:
        raise StripeError(400, "Invalid array: must have at least 1 element.", param="items")
    now = sandbox.clock.seconds()
    id = sandbox.ids.new("sub")
    trial_end = now + call.params["trial_period_days"] * 86400 if call.params.get("trial_period_days") else None
    subscription = {
        "id": id,
        "object": "subscription",
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "collection_method": "charge_automatically",
        "created": now,
        "currency": "usd",
        "customer": customer["id"],
        "description": call.params.get("description"),
        "ended_at": None,
        "items": {
            "object": "list",
            "data": [_item(sandbox, id, item, now) for item in call.params["items"]],
            "has_more": False,
            "url": f"/v1/subscription_items?subscription={id}",
        },
        "livemode": False,
        "metadata": metadata_merged({}, call.params.get("metadata")),
        "start_date": now,
        "status": "trialing" if trial_end else "active",
        "trial_end": trial_end,
        "trial_start": now if trial_end else None,
    }
    sandbox.store.subscriptions.put(id, subscription)
    sandbox.event_publish("customer.subscription.created", subscription, call=call)
    return subscription


def subscription_retrieve(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    subscription = sandbox.store.subscriptions.get(call.id)
    if subscription is None:
        raise resource_missing("subscription", call.id)
    return subscription


def subscription_cancel(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    subscription = sandbox.store.subscriptions.get(call.id)
    if subscription is None or subscription["status"] in ENDED:
        raise resource_missing("subscription", call.id)
    return canceled(sandbox, subscription, call=call)


def subscription_list(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    customer, status = call.params.get("customer"), call.params.get("status")
    if customer is not None and customer not in sandbox.store.customers:
        raise resource_missing("customer", customer, param="customer", status=400)

    def keep(subscription: dict[str, Any]) -> bool:
        present: str = subscription["status"]
        if customer is not None and subscription["customer"] != customer:
            return False
        if status is None:
            # Canceled ones are left out unless they are asked for.
            return present != "canceled"
        return status in ("all", present) or (status == "ended" and present in ENDED)

    return page_of(
        sandbox.store.subscriptions,
        kind="subscription",
        url="/v1/subscriptions",
        params=call.params,
        keep=keep,
        render=lambda subscription: subscription,
    )


def canceled(sandbox: StripeSandbox, subscription: dict[str, Any], *, call: Call) -> dict[str, Any]:
    """Cancel at once and say so in an event."""
    now = sandbox.clock.seconds()
    ended = {**subscription, "status": "canceled", "canceled_at": now, "ended_at": now}
    sandbox.store.subscriptions.put(subscription["id"], ended)
    sandbox.event_publish("customer.subscription.deleted", ended, call=call)
    return ended


def _item(sandbox: StripeSandbox, subscription_id: str, item: dict[str, Any], now: int) -> dict[str, Any]:
    return {
        "id": sandbox.ids.new("si"),
        "object": "subscription_item",
        "created": now,
        "current_period_end": now + MONTH,
        "current_period_start": now,
        "metadata": {},
        "price": {"id": item["price"], "object": "price", "active": True, "currency": "usd", "livemode": False},
        "quantity": item.get("quantity", 1),
        "subscription": subscription_id,
    }
