"""Setting up a Stripe account: what the key may do, and the webhook endpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from customers.integrations import ConfigurationError, IntegrationError, PermissionMissing, RemoteMissing
from customers.stripe.client import errors_translated, stripe_client
from customers.stripe.conf import StripeSettings
from customers.stripe.signatures import TYPES

# An id that no customer has: writing to it proves the permission and changes nothing.
_NOBODY: Final = "cus_zenskar_permission_probe"
_WEBHOOKS: Final = "/webhooks/stripe"
_ALIASES: Final = (_WEBHOOKS, "/api/v1/webhooks/stripe")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_PORTS: Final = {"http": 80, "https": 443}


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
    """Register the endpoint, with the events that are understood here and with our API version; once per service.

    An endpoint at another spelling of the same address is this one: two would bring every webhook twice.

    Raises:
        IntegrationError: Stripe refused; the message is its own.
    """
    v1: Any = stripe_client(config).v1
    try:
        with errors_translated():
            for endpoint in v1.webhook_endpoints.list({"limit": 100}).auto_paging_iter():
                if _address(endpoint.url) == _address(url):
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


def _address(url: str) -> tuple[str, int | None, str]:
    """What tells services apart, whatever the spelling; the paths that all are our webhooks' are one."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or _PORTS.get(parts.scheme)
    path = parts.path.rstrip("/")
    return ("localhost" if host in _LOOPBACK else host, port, _WEBHOOKS if path in _ALIASES else path)


def _refreshed(v1: Any, endpoint: Any, config: StripeSettings) -> Endpoint:
    """An endpoint's API version is fixed for its life, its events are not; what else it was given stays.

    One without a version of its own follows the account's, which the version in each event shows.
    """
    if endpoint.api_version not in (None, config.api_version):
        note = f"its API version is {endpoint.api_version}: delete it in Stripe's dashboard and run this again"
        return Endpoint(id=endpoint.id, note=note)
    wanted = set(endpoint.enabled_events)
    if not ("*" in wanted or wanted.issuperset(TYPES)) or endpoint.status != "enabled":
        events = ["*"] if "*" in wanted else sorted(wanted | set(TYPES))
        v1.webhook_endpoints.update(endpoint.id, {"enabled_events": events, "disabled": False})
        return Endpoint(id=endpoint.id, note="it was enabled for the events that are understood here")
    return Endpoint(id=endpoint.id, note="its secret is shown in Stripe's dashboard")
