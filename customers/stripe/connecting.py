"""Setting up a Stripe account: what the key may do, and the webhook endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from customers.integrations import ConfigurationError, IntegrationError, PermissionMissing, RemoteMissing
from customers.stripe.client import errors_translated, stripe_client
from customers.stripe.conf import StripeSettings
from customers.stripe.signatures import TYPES

# An id that no customer has: writing to it proves the permission and changes nothing.
_NOBODY: Final = "cus_zenskar_permission_probe"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint: ``secret`` only when it was made now, ``note`` when it was there before."""

    id: str
    secret: str = ""
    note: str = ""


def account_check(config: StripeSettings) -> str:
    """The id of the key's account; empty when the key may not read it.

    Raises:
        ConfigurationError: the key is wrong, or belongs to another account than ``STRIPE_ACCOUNT`` says.
        IntegrationError: Stripe did not answer.
    """
    client = stripe_client(config)
    try:
        with errors_translated():
            found = str(client.v1.accounts.retrieve_current().id)
    except PermissionMissing:
        return ""
    if config.account and found != config.account:
        raise ConfigurationError(f"The key belongs to {found}, but STRIPE_ACCOUNT is {config.account}.")
    return found


def permissions_check(config: StripeSettings, *, with_webhooks: bool) -> None:
    """Try each permission that the service needs, without changing anything.

    Raises:
        PermissionMissing: one is missing; the message names it.
        IntegrationError: Stripe did not answer as expected.
    """
    v1 = stripe_client(config).v1
    probes: list[tuple[str, Callable[[], Any]]] = [
        ("read customers", lambda: v1.customers.list({"limit": 1})),
        ("write customers", lambda: v1.customers.update(_NOBODY, {"description": "probe"})),
        ("read subscriptions", lambda: v1.subscriptions.list({"limit": 1})),
    ]
    if with_webhooks:
        probes.append(("write webhook endpoints", lambda: v1.webhook_endpoints.list({"limit": 1})))
    for name, probe in probes:
        try:
            with errors_translated():
                probe()
        except RemoteMissing:
            continue
        except PermissionMissing as exc:
            raise PermissionMissing(f"The key may not {name}: allow it in Stripe's dashboard.") from exc


def endpoint_register(config: StripeSettings, url: str) -> Endpoint:
    """Register the endpoint, with the events that are understood here and with our API version; once per address.

    Raises:
        IntegrationError: Stripe refused; the message is its own.
    """
    v1: Any = stripe_client(config).v1
    try:
        with errors_translated():
            for endpoint in v1.webhook_endpoints.list({"limit": 100}).auto_paging_iter():
                if endpoint.url == url:
                    return _refreshed(v1, endpoint, config)
            created = v1.webhook_endpoints.create(
                {
                    "url": url,
                    "enabled_events": list(TYPES),
                    "api_version": config.api_version,
                    "description": "Zenskar: customers",
                }
            )
            return Endpoint(id=created.id, secret=created.secret or "")
    except PermissionMissing as exc:
        raise PermissionMissing("The key may not write webhook endpoints: allow it in Stripe's dashboard.") from exc
    except IntegrationError as exc:
        exc.args = (f"Stripe refused the endpoint: {exc.message}",)
        raise


def _refreshed(v1: Any, endpoint: Any, config: StripeSettings) -> Endpoint:
    """An endpoint's API version is fixed for its life, its events are not."""
    if endpoint.api_version != config.api_version:
        note = f"its API version is {endpoint.api_version}: delete it in Stripe's dashboard and run this again"
        return Endpoint(id=endpoint.id, note=note)
    if set(endpoint.enabled_events) != set(TYPES) or endpoint.status != "enabled":
        v1.webhook_endpoints.update(endpoint.id, {"enabled_events": list(TYPES), "disabled": False})
        return Endpoint(id=endpoint.id, note="it was enabled for the events that are understood here")
    return Endpoint(id=endpoint.id, note="its secret is shown in Stripe's dashboard")
