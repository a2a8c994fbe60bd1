"""Webhooks: is it Stripe's, is it fresh, and what is it about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import stripe

from customers.integrations import RemoteMessage, RemoteRecord, WebhookRefused
from customers.stripe.mapping import record_of
from operations.errors import FieldError, ProblemError
from operations.json_bodies import parsed

TOLERANCE: Final = 300
CREATED, UPDATED, DELETED = "customer.created", "customer.updated", "customer.deleted"
# Ids become part of addresses that are asked for; no id of Stripe's holds anything else.
_ID: Final = re.compile(r"[A-Za-z0-9_]{1,255}\Z")
SUBSCRIPTION_DELETED: Final = "customer.subscription.deleted"
# What stripe_connect registers. The end of a subscription may allow a deletion that was refused because of it.
TYPES: Final = (CREATED, UPDATED, DELETED, SUBSCRIPTION_DELETED)


class NotAnEvent(ProblemError):
    """The signature is right, but the body is no event of Stripe's."""

    code = "not_an_event"
    title = "No event"


def signature_verify(body: bytes, header: str, secrets: Sequence[str]) -> None:
    """Check that one of the secrets signed the body, at most five minutes ago.

    Several secrets are in force while one is rotated. A time in the future is no danger: it is signed too.

    Raises:
        WebhookRefused: none did, or it is too old; which of both is not said.
    """
    if not header.isascii():
        # The library compares as text and would stumble over it.
        raise WebhookRefused
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body, header, secret, TOLERANCE)
        except (stripe.SignatureVerificationError, ValueError):
            # ValueError: the body is not UTF-8, or the header holds what no signature does.
            continue
        return
    raise WebhookRefused


def message_read(body: bytes) -> RemoteMessage:
    """A verified body as a message.

    Raises:
        MalformedBody: it is no JSON that can be stored.
        NotAnEvent: it is no event; with what is wrong with which of its values.
    """
    event = parsed(body)
    if errors := list(_event_errors(event)):
        raise NotAnEvent(f"{NotAnEvent.__doc__} {' '.join(error.detail for error in errors)}", errors=errors)
    event_id, kind, account = event["id"], event["type"], event.get("account") or ""
    remote_id = _customer_id(event, kind)
    ignore = ""
    if kind not in TYPES:
        ignore = "of a type that means nothing here"
    elif not remote_id:
        ignore = "names no customer"
    if ignore:
        # That it came is of interest, and what it says of somebody is not: what nobody will read is not kept.
        event = {name: value for name, value in event.items() if name != "data"}
    return RemoteMessage(
        event_id=event_id,
        type=kind,
        account=account[:64],
        livemode=event["livemode"],
        remote_id=remote_id,
        payload=event,
        ignore=ignore,
    )


def message_record(event: Mapping[str, Any]) -> tuple[RemoteRecord | None, str]:
    """The customer in a stored event as it was then, and the idempotency key of the request behind it."""
    request = event.get("request")
    key = request.get("idempotency_key") if isinstance(request, Mapping) else None
    data = _object(event)
    record = None
    if data.get("object") == "customer":
        # The event of a deletion carries the customer as it was, without a flag.
        record = record_of(data, deleted=event.get("type") == DELETED)
    return record, key if isinstance(key, str) else ""


def _event_errors(event: Any) -> Iterator[FieldError]:
    if not isinstance(event, dict):
        yield _wrong("", "It is not an object.")
        return
    if event.get("object") != "event":
        hint = " Thin events are not taken." if event.get("object") == "v2.core.event" else ""
        yield _wrong("/object", f'"object" is not "event".{hint}')
    for name, longest in (("id", 255), ("type", 128)):
        value = event.get(name)
        if not (isinstance(value, str) and 0 < len(value) <= longest):
            yield _wrong(f"/{name}", f'"{name}" is not a text of 1 to {longest} characters.')
    # Taken for our own account or for a test, it would be acted upon.
    if not isinstance(event.get("account", ""), str | None):
        yield _wrong("/account", '"account" is neither a text nor null.')
    if not isinstance(event.get("livemode"), bool):
        yield _wrong("/livemode", '"livemode" is neither true nor false.')
    # The first alone: there may be as many as the body has room for.
    for pointer in islice(_unstorable_integers(event, ""), 1):
        yield _wrong(pointer, "An integer has more than 64 bits.")


def _unstorable_integers(value: Any, pointer: str) -> Iterator[str]:
    """Where integers stand that no writer of ours takes."""
    match value:
        case int():
            if not -(2**63) <= value < 2**64:
                yield pointer
        case dict():
            for key, element in value.items():
                yield from _unstorable_integers(element, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
        case list():
            for index, element in enumerate(value):
                yield from _unstorable_integers(element, f"{pointer}/{index}")


def _wrong(pointer: str, detail: str) -> FieldError:
    return FieldError(pointer=pointer, code="invalid_value", detail=detail)


def _customer_id(event: Mapping[str, Any], kind: str) -> str:
    found = _object(event).get("customer" if kind.startswith("customer.subscription.") else "id")
    return found if kind.startswith("customer.") and isinstance(found, str) and _ID.match(found) else ""


def _object(event: Mapping[str, Any]) -> Mapping[str, Any]:
    data = event.get("data")
    found = data.get("object") if isinstance(data, Mapping) else None
    return found if isinstance(found, Mapping) else {}
