"""Events: what happened to an object, readable for 30 days. Source: docs.stripe.com/api/events."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from zenskar.sandbox.stripe.calls import Call
from zenskar.sandbox.stripe.errors import StripeError, resource_missing
from zenskar.sandbox.stripe.fields import Boolean, ListOf, Table, Text
from zenskar.sandbox.stripe.listing import LIST_FIELDS, page_of

if TYPE_CHECKING:
    from zenskar.sandbox.stripe.core import StripeSandbox

READABLE_FOR = 30 * 24 * 3600
LIST: Table = {**LIST_FIELDS, "type": Text(unset=False), "types": ListOf(maximum=20), "delivery_success": Boolean()}
RETRIEVE: Table = {"expand": ListOf()}


def event_new(
    sandbox: StripeSandbox,
    type: str,
    object: dict[str, Any],
    *,
    previous: dict[str, Any] | None,
    call: Call,
) -> dict[str, Any]:
    """The event object. A change made by hand in the dashboard names no request and no key.

    A key sent with DELETE has no effect (docs.stripe.com/api/idempotent_requests), so its event carries none.
    """
    data: dict[str, Any] = {"object": object}
    if previous is not None:
        data["previous_attributes"] = previous
    key = call.idempotency_key if call.method == "POST" else None
    return {
        "id": sandbox.ids.new("evt"),
        "object": "event",
        "api_version": sandbox.api_version,
        "created": sandbox.clock.seconds(),
        "data": data,
        "livemode": False,
        "pending_webhooks": 0,
        "request": {"id": None if call.by_hand else call.request_id, "idempotency_key": key},
        "type": type,
    }


def event_retrieve(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    event = sandbox.store.events.get(call.id)
    if event is None or not _readable(sandbox, event):
        raise resource_missing("event", call.id)
    return event


def event_list(sandbox: StripeSandbox, call: Call) -> dict[str, Any]:
    params = call.params
    if "type" in params and "types" in params:
        raise StripeError(400, "You may only specify one of these parameters: type, types.")
    patterns = params.get("types") or ([params["type"]] if "type" in params else ["*"])
    delivered = params.get("delivery_success")

    def keep(event: dict[str, Any]) -> bool:
        return (
            any(fnmatchcase(event["type"], pattern) for pattern in patterns)
            and (delivered is None or delivered is (event["pending_webhooks"] == 0))
            and _readable(sandbox, event)
        )

    return page_of(
        sandbox.store.events, kind="event", url="/v1/events", params=params, keep=keep, render=lambda event: event
    )


def _readable(sandbox: StripeSandbox, event: dict[str, Any]) -> bool:
    return bool(event["created"] > sandbox.clock.now() - READABLE_FOR)
