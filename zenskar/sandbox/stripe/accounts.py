"""The one account that the sandbox is. Source: docs.stripe.com/api/accounts/retrieve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zenskar.sandbox.stripe.calls import Call
from zenskar.sandbox.stripe.errors import StripeError
from zenskar.sandbox.stripe.fields import ListOf, Table

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

RETRIEVE: Table = {"expand": ListOf()}


def account_retrieve(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    if call.id and call.id != sandbox.account_id:
        raise account_invalid(call.id)
    return {
        "id": sandbox.account_id,
        "object": "account",
        "business_profile": {"mcc": None, "name": "Stripe sandbox", "support_email": None, "url": None},
        "business_type": None,
        "capabilities": {},
        "charges_enabled": False,
        "country": "US",
        "created": sandbox.account_created,
        "default_currency": "usd",
        "details_submitted": False,
        "email": "sandbox@example.com",
        "metadata": {},
        "payouts_enabled": False,
        "settings": {"dashboard": {"display_name": "Stripe sandbox", "timezone": "Etc/UTC"}},
        "type": "standard",
    }


def account_invalid(id: str) -> StripeError:
    return StripeError(
        403,
        f"The provided key does not have access to account '{id}' (or that account does not exist). Application access "
        "may have been revoked.",
        code="account_invalid",
    )
