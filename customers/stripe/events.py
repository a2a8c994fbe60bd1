"""The events that Stripe keeps for thirty days: what webhooks told, and what they should have told."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import orjson
import structlog

from customers.integrations import MessagePage, PermanentError, RemoteMessage
from customers.stripe.client import errors_translated
from customers.stripe.signatures import TYPES, NotAnEvent, message_read
from operations.errors import MalformedBody

log = structlog.get_logger(__name__)

PAGE: Final = 100


def events_page(client: Any, *, since: datetime, until: datetime, after: str) -> MessagePage:
    """One page of the events that mean something here, newest first."""
    created = {"gte": int(since.timestamp()), "lt": int(until.timestamp())}
    params: dict[str, Any] = {"limit": PAGE, "created": created, "types": list(TYPES)}
    try:
        listed = _listed(client, {**params, **({"starting_after": after} if after else {})})
    except PermanentError as exc:
        if not after or exc.code != "resource_missing":
            raise
        listed = _listed(client, params)
    events = listed["data"]
    last = events[-1]["id"] if events and listed.get("has_more") else ""
    messages = [message for event in events if (message := _message(event)) is not None]
    return MessagePage(messages=tuple(messages), after=last)


def _message(event: dict[str, Any]) -> RemoteMessage | None:
    """The event as a webhook would have brought it; None for one that could not be kept."""
    try:
        # Written and read anew: what may be kept is decided in one place.
        return message_read(orjson.dumps(event))
    except (NotAnEvent, MalformedBody, TypeError) as exc:
        log.warning("event_unreadable", error=type(exc).__name__)
        return None


def _listed(client: Any, params: dict[str, Any]) -> dict[str, Any]:
    with errors_translated():
        found: dict[str, Any] = client.raw_request("get", "/v1/events", **params).data
        return found
