"""``expand[]``: objects in place of ids, and lists that are left out unless asked for.

Source: docs.stripe.com/expand (at most four levels; ``data.`` for the objects of a list).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zenskar.sandbox.stripe.errors import StripeError

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

MAX_LEVELS = 4
_LISTS = {"sources": "/v1/customers/{}/sources", "tax_ids": "/v1/customers/{}/tax_ids"}
# The first names make a difference here; the others can be expanded in Stripe, and are always null or absent here.
_EXPANDABLE = {
    "customer": frozenset(
        {"subscriptions", *_LISTS, "cash_balance", "default_source", "invoice_credit_balance", "tax", "test_clock"}
    ),
    "subscription": frozenset({"customer", "default_payment_method", "items", "latest_invoice"}),
}


def expandable(kind: str, *, listed: bool, paths: list[str]) -> None:
    """Raise StripeError 400 before anything is done when one of ``paths`` of a ``kind`` cannot be expanded."""
    for path in paths:
        parts = (path or "").split(".")
        if len(parts) > MAX_LEVELS:
            raise StripeError(400, f"You cannot expand more than {MAX_LEVELS} levels of a property ({path}).")
        names = parts[1:] if listed and parts[0] == "data" else parts
        if (listed and parts[0] != "data") or len(names) != 1 or names[0] not in _EXPANDABLE.get(kind, frozenset()):
            raise StripeError(400, f"This property cannot be expanded ({path}).")


def expanded(sandbox: StripeSandbox, body: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """``body`` with ``paths`` expanded."""
    for path in paths:
        name = path.rpartition(".")[2]
        if body.get("object") in ("list", "search_result"):
            body = {**body, "data": [_expand(sandbox, each, name) for each in body["data"]]}
        else:
            body = _expand(sandbox, body, name)
    return body


def _expand(sandbox: StripeSandbox, body: dict[str, Any], name: str) -> dict[str, Any]:
    if body.get("deleted"):
        return body
    if name in _LISTS:
        empty = {"object": "list", "data": [], "has_more": False, "url": _LISTS[name].format(body["id"])}
        return {**body, name: empty}
    if name == "subscriptions":
        own = [each for each in sandbox.store.subscriptions if each["customer"] == body["id"]]
        data = [each for each in reversed(own) if each["status"] != "canceled"]
        url = f"/v1/customers/{body['id']}/subscriptions"
        return {**body, name: {"object": "list", "data": data[:10], "has_more": len(data) > 10, "url": url}}
    if name == "customer":
        found = sandbox.store.customers.get(body["customer"])
        if found is not None and found.get("deleted"):
            found = {"id": found["id"], "object": "customer", "deleted": True}
        return {**body, name: found}
    return body
