"""``expand[]``: objects in place of ids, and lists that are left out unless asked for.

Source: docs.stripe.com/expand (at most four levels; ``data.`` for the objects of a list).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zenskar.sandbox.stripe.errors import StripeError

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

MAX_LEVELS = 4
# Expandable in Stripe, and always null or absent here.
_EMPTY = {
    "customer": frozenset({"cash_balance", "default_source", "invoice_credit_balance", "tax", "test_clock"}),
    "subscription": frozenset({"items", "latest_invoice", "default_payment_method"}),
}
_LISTS = {"sources": "/v1/customers/{}/sources", "tax_ids": "/v1/customers/{}/tax_ids"}


def expanded(sandbox: StripeSandbox, body: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """``body`` with ``paths`` expanded; raises StripeError 400 for what cannot be."""
    for path in paths:
        parts = (path or "").split(".")
        if len(parts) > MAX_LEVELS:
            raise StripeError(400, f"You cannot expand more than {MAX_LEVELS} levels of a property ({path}).")
        if body.get("object") in ("list", "search_result"):
            if parts[0] != "data" or len(parts) < 2:
                raise _impossible(path)
            body = {**body, "data": [_expand(sandbox, each, parts[1:], path) for each in body["data"]]}
        else:
            body = _expand(sandbox, body, parts, path)
    return body


def _expand(sandbox: StripeSandbox, body: dict[str, Any], parts: list[str], path: str) -> dict[str, Any]:
    name = parts[0]
    kind = body.get("object", "")
    if body.get("deleted") or name in _EMPTY.get(kind, frozenset()):
        return body
    if kind == "customer" and name in _LISTS:
        empty = {"object": "list", "data": [], "has_more": False, "url": _LISTS[name].format(body["id"])}
        return {**body, name: empty}
    if kind == "customer" and name == "subscriptions":
        own = [each for each in sandbox.store.subscriptions if each["customer"] == body["id"]]
        data = [each for each in reversed(own) if each["status"] != "canceled"]
        url = f"/v1/customers/{body['id']}/subscriptions"
        return {**body, name: {"object": "list", "data": data[:10], "has_more": len(data) > 10, "url": url}}
    if kind == "subscription" and name == "customer":
        found = sandbox.store.customers.get(body["customer"])
        if found is not None and found.get("deleted"):
            found = {"id": found["id"], "object": "customer", "deleted": True}
        return {**body, name: found}
    raise _impossible(path)


def _impossible(path: str) -> StripeError:
    return StripeError(400, f"This property cannot be expanded ({path}).")
