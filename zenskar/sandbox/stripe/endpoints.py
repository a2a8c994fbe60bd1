"""Webhook endpoints: where events are sent. The secret is shown once, when the endpoint is created.

Source: docs.stripe.com/api/webhook_endpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zenskar.sandbox.stripe.calls import Call
from zenskar.sandbox.stripe.errors import StripeError, resource_missing
from zenskar.sandbox.stripe.fields import Boolean, Field, ListOf, Metadata, Table, Text, metadata_merged
from zenskar.sandbox.stripe.listing import LIST_FIELDS, page_of

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

MAX_ENDPOINTS = 16
_WRITABLE: dict[str, Field] = {
    "description": Text(),
    "metadata": Metadata(),
    "expand": ListOf(),
}
CREATE: Table = {
    **_WRITABLE,
    "url": Text(required=True, unset=False),
    "enabled_events": ListOf(required=True),
    "api_version": Text(unset=False, pattern=r"\d{4}-\d{2}-\d{2}(\.[a-z]+)?"),
    "connect": Boolean(),
}
UPDATE: Table = {**_WRITABLE, "url": Text(unset=False), "enabled_events": ListOf(), "disabled": Boolean()}
RETRIEVE: Table = {"expand": ListOf()}
LIST: Table = {name: field for name, field in LIST_FIELDS.items() if name != "created"}


def endpoint_create(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    _url_checked(call.params["url"])
    _events_checked(call.params["enabled_events"])
    if len(sandbox.store.endpoints) >= MAX_ENDPOINTS:
        raise StripeError(400, f"You have reached the maximum of {MAX_ENDPOINTS} test webhook endpoints.")
    endpoint = {
        "id": sandbox.ids.new("we"),
        "object": "webhook_endpoint",
        "api_version": call.params.get("api_version"),
        "application": None,
        "created": sandbox.clock.seconds(),
        "description": call.params.get("description"),
        "enabled_events": call.params["enabled_events"],
        "livemode": False,
        "metadata": metadata_merged({}, call.params.get("metadata")),
        "status": "enabled",
        "url": call.params["url"],
    }
    secret = sandbox.ids.new("whsec")
    sandbox.store.endpoints.put(endpoint["id"], {**endpoint, "secrets": [secret]})
    return {**endpoint, "secret": secret}


def endpoint_retrieve(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    return _shown(_present(sandbox, call.id))


def endpoint_update(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    endpoint = dict(_present(sandbox, call.id))
    params = call.params
    if "url" in params:
        _url_checked(params["url"])
        endpoint["url"] = params["url"]
    if "enabled_events" in params:
        _events_checked(params["enabled_events"])
        endpoint["enabled_events"] = params["enabled_events"]
    if "disabled" in params:
        endpoint["status"] = "disabled" if params["disabled"] else "enabled"
    if "description" in params:
        endpoint["description"] = params["description"]
    if "metadata" in params:
        endpoint["metadata"] = metadata_merged(endpoint["metadata"], params["metadata"])
    sandbox.store.endpoints.put(call.id, endpoint)
    return _shown(endpoint)


def endpoint_delete(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    _present(sandbox, call.id)
    sandbox.store.endpoints.remove(call.id)
    return {"id": call.id, "object": "webhook_endpoint", "deleted": True}


def endpoint_list(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    return page_of(
        sandbox.store.endpoints,
        kind="webhook endpoint",
        url="/v1/webhook_endpoints",
        params=call.params,
        keep=lambda endpoint: True,
        render=_shown,
    )


def _present(sandbox: StripeSandbox, id: str) -> dict[str, Any]:
    endpoint = sandbox.store.endpoints.get(id)
    if endpoint is None:
        raise resource_missing("webhook endpoint", id)
    return endpoint


def _shown(endpoint: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in endpoint.items() if name != "secrets"}


def _url_checked(url: str) -> None:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise StripeError(400, "Invalid URL: An explicit scheme (such as https) must be provided.", param="url")


def _events_checked(names: list[str]) -> None:
    if not names:
        raise StripeError(400, "You must enable at least one event.", param="enabled_events")
