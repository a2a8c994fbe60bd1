"""Which request goes to which function, by method and path, with the table of its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zenskar.sandbox.stripe import accounts, customers, endpoints, events, subscriptions
from zenskar.sandbox.stripe.calls import Call
from zenskar.sandbox.stripe.fields import Table

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

Handler = Callable[["StripeSandbox", Call], dict[str, Any]]


@dataclass(frozen=True)
class Route:
    """One operation. ``permission`` is what a restricted key needs, to which ``_read`` or ``_write`` is added."""

    method: str
    template: str
    table: Table
    handler: Handler
    permission: str

    @property
    def listed(self) -> bool:
        """Whether it answers a list of what ``permission`` names."""
        return self.method == "GET" and "{" not in self.template and self.permission != "account"

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"


ROUTES = (
    Route("POST", "/v1/customers", customers.CREATE, customers.customer_create, "customer"),
    Route("GET", "/v1/customers", customers.LIST, customers.customer_list, "customer"),
    Route("GET", "/v1/customers/search", customers.SEARCH, customers.customer_search, "customer"),
    Route("GET", "/v1/customers/{id}", customers.RETRIEVE, customers.customer_retrieve, "customer"),
    Route("POST", "/v1/customers/{id}", customers.UPDATE, customers.customer_update, "customer"),
    Route("DELETE", "/v1/customers/{id}", {}, customers.customer_delete, "customer"),
    Route("GET", "/v1/events", events.LIST, events.event_list, "event"),
    Route("GET", "/v1/events/{id}", events.RETRIEVE, events.event_retrieve, "event"),
    Route("POST", "/v1/subscriptions", subscriptions.CREATE, subscriptions.subscription_create, "subscription"),
    Route("GET", "/v1/subscriptions", subscriptions.LIST, subscriptions.subscription_list, "subscription"),
    Route("GET", "/v1/subscriptions/{id}", subscriptions.RETRIEVE, subscriptions.subscription_retrieve, "subscription"),
    Route("DELETE", "/v1/subscriptions/{id}", subscriptions.CANCEL, subscriptions.subscription_cancel, "subscription"),
    Route("POST", "/v1/webhook_endpoints", endpoints.CREATE, endpoints.endpoint_create, "webhook"),
    Route("GET", "/v1/webhook_endpoints", endpoints.LIST, endpoints.endpoint_list, "webhook"),
    Route("GET", "/v1/webhook_endpoints/{id}", endpoints.RETRIEVE, endpoints.endpoint_retrieve, "webhook"),
    Route("POST", "/v1/webhook_endpoints/{id}", endpoints.UPDATE, endpoints.endpoint_update, "webhook"),
    Route("DELETE", "/v1/webhook_endpoints/{id}", {}, endpoints.endpoint_delete, "webhook"),
    Route("GET", "/v1/account", accounts.RETRIEVE, accounts.account_retrieve, "account"),
    Route("GET", "/v1/accounts/{id}", accounts.RETRIEVE, accounts.account_retrieve, "account"),
)
_FIXED = {(route.method, route.template): route for route in ROUTES if "{" not in route.template}
_BY_ID = {(route.method, route.template.removesuffix("{id}")): route for route in ROUTES if "{" in route.template}


def route_of(method: str, path: str) -> tuple[Route, str] | None:
    """The route and the id in the path, empty where the route has none."""
    fixed = _FIXED.get((method, path))
    if fixed is not None:
        return fixed, ""
    prefix, _, id = path.rpartition("/")
    by_id = _BY_ID.get((method, f"{prefix}/"))
    return (by_id, id) if by_id is not None and id else None
