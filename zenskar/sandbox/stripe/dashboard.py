"""What somebody does by hand in Stripe's dashboard: the same changes, whose events name no request and no key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zenskar.sandbox.stripe import customers
from zenskar.sandbox.stripe.calls import Call
from zenskar.sandbox.stripe.fields import parse

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox


def customer_add(sandbox: StripeSandbox, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Create a customer; raises StripeError as the API does."""
    with sandbox.store.transaction():
        params = parse(customers.CREATE, _as_form(fields))
        return customers.customer_create(sandbox, _call("POST", "", params))


def customers_fill(sandbox: StripeSandbox, count: int, *, per_second: int = 0, days: int = 0) -> int:
    """Make an account large at once: ``count`` customers that no event tells of. Returns how many.

    With ``per_second`` their creation times go on from now, so many in each second; with ``days`` they are spread
    evenly over so many days until now; else all of them are of now.
    """
    with sandbox.store.transaction():
        for number in range(count):
            customer = customers.customer_blank(sandbox)
            customer["name"], customer["email"] = f"Filler {number}", f"filler{number}@example.com"
            customer["created"] += number // per_second if per_second else 0
            customer["created"] -= days * 86_400 * (count - number) // count
            sandbox.customer_store(customer)
    return count


def customer_edit(sandbox: StripeSandbox, customer_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change a customer; None unsets. Raises StripeError as the API does."""
    with sandbox.store.transaction():
        params = parse(customers.UPDATE, _as_form(changes))
        return customers.customer_update(sandbox, _call("POST", customer_id, params))


def customer_remove(sandbox: StripeSandbox, customer_id: str) -> None:
    """Delete a customer; raises StripeError as the API does."""
    with sandbox.store.transaction():
        customers.customer_delete(sandbox, _call("DELETE", customer_id, {}))


def _call(method: str, id: str, params: dict[str, Any]) -> Call:
    return Call(
        method=method,
        path="",
        route="",
        id=id,
        request_id="",
        api_version="",
        idempotency_key=None,
        raw={},
        params=params,
        by_hand=True,
    )


def _as_form(value: Any) -> Any:
    """Python values as the form parameters that the field tables read."""
    if isinstance(value, Mapping):
        return {str(name): _as_form(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return {str(position): _as_form(each) for position, each in enumerate(value)}
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
