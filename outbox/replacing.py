"""Edit and replay: a new event in place of one that could not be delivered. The original stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, Final

import orjson
from django.utils.module_loading import import_string

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.conf import payload_validators
from outbox.deciding import deliveries_resolve
from outbox.errors import DecisionRefused, InvalidEvent
from outbox.events import NewEvent
from outbox.models import Delivery, Replacement, StoredEvent
from outbox.models.delivery import OPEN
from outbox.publishing import publish

LARGEST_BYTES: Final = 1_000_000
DIFFERENCES_SHOWN: Final = 500

Validator = Callable[[str, int, Mapping[str, Any], Mapping[str, Any]], None]
"""Takes an event's type and schema version, its payload before and after; raises ValueError with one sentence.

It raises DecisionRefused when nothing may be published about the thing, whatever the payload. It is called in the
transaction that publishes, before anything of the log is locked, so it may lock what it looks at.
"""


def delivery_replace(*, delivery_id: int, payload: Mapping[str, Any], actor: str, reason: str) -> Replacement:
    """Publish an edited copy of a delivery's event, and resolve the delivery.

    The copy is the newest event of its aggregate and goes to every subscriber, as any event does: it says what is true
    now. It names the original as its cause and in the header ``replaces``. Events that waited behind the original go
    on.

    Args:
        delivery_id: an open delivery that no earlier event of its aggregate holds back.
        payload: of the new event.
        actor: who asks for it.
        reason: why.

    Raises:
        DecisionRefused: the delivery is not open, or waits behind an earlier event, or nothing was changed, or nothing
            may be published about its aggregate.
        InvalidEvent: the payload is not valid for events of this type; the message says why.
    """

    def work() -> Replacement:
        delivery = Delivery.objects.filter(pk=delivery_id, state__in=OPEN).first()
        if delivery is None:
            raise DecisionRefused(f"Delivery {delivery_id} is not open.")
        original = _original(delivery)
        before = original["payload"]
        # The validator first: what it locks, everybody else who publishes or erases locks before the log's rows, too.
        payload_validate(original, payload)
        if not deliveries_resolve([delivery_id], "replaced", actor, reason):
            open_ = Delivery.objects.filter(pk=delivery_id, state__in=OPEN).exists()
            why = "waits behind an earlier event of its aggregate" if open_ else "is not open"
            raise DecisionRefused(f"Delivery {delivery_id} {why}.")
        diff = payload_diff(before, payload)
        if not diff:
            raise DecisionRefused("Nothing was changed; retry the delivery instead.")
        event_id = publish(
            NewEvent(
                topic=original["topic"],
                type=original["type"],
                aggregate_type=original["aggregate_type"],
                aggregate_id=original["aggregate_id"],
                payload=payload,
                schema_version=original["schema_version"],
                origin="console",
                headers={**original["headers"], "replaces": original["uid"]},
                correlation_id=original["correlation_id"] or None,
                causation_id=original["uid"],
            )
        )
        made = Replacement.objects.create(
            subscriber=delivery.subscription_id,
            original_id=delivery.event_id,
            event_id=event_id,
            diff=diff,
            actor=actor[:200],
            reason=reason[:1000],
        )
        # What was changed may be a person's data, which must be erasable: it stands in the replacement alone.
        detail = {"reason": reason[:1000], "event": event_id, "changed": [one["pointer"] for one in diff][:20]}
        audit_record(actor=actor, action="delivery.replaced", target=f"delivery:{delivery_id}", detail=detail)
        return made

    return run_in_transaction(work)


def payload_validate(original: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Whether an edited payload may be published in place of an event's.

    What holds the id of the aggregate stays: an edit does not make an event one of something else.
    OUTBOX_PAYLOAD_VALIDATORS names a function for events of a type (``customer.updated``) or of all types of a kind
    (``customer.*``). Without one the original stands in for the schema: no field of its first level may go or come,
    each keeps its kind of value, and null stands only where it stood.

    Args:
        original: ``type``, ``schema_version``, ``aggregate_id`` and ``payload`` of the event.
        after: the edited payload.

    Raises:
        InvalidEvent: it may not; the message says why.
        DecisionRefused: nothing may be published about the aggregate.
    """
    if not isinstance(after, dict):
        raise InvalidEvent("The payload must be a JSON object.")
    try:
        size = len(orjson.dumps(after))
    except TypeError as exc:
        raise InvalidEvent(f"The payload cannot be written as JSON: {exc}") from exc
    if size > LARGEST_BYTES:
        raise InvalidEvent(f"The payload takes {size} bytes; {LARGEST_BYTES} is the most.")
    type_, before = str(original["type"]), original["payload"]
    for name, value in before.items():
        if value == original["aggregate_id"] and after.get(name, value) != value:
            raise InvalidEvent(f"The field {name[:100]!r} must stay as it was: it says what the event is about.")
    validators = payload_validators()
    path = validators.get(type_) or validators.get(f"{type_.partition('.')[0]}.*")
    if path is None:
        _validate_alike(before, after)
        return
    validate: Validator = import_string(path)
    try:
        validate(type_, original["schema_version"], before, after)
    except ValueError as exc:
        raise InvalidEvent(str(exc)) from exc


def payload_diff(before: Any, after: Any, pointer: str = "") -> list[dict[str, Any]]:
    """What changed, leaf by leaf: JSON pointer, value before, value after; absent ones are left out."""
    if isinstance(before, dict) and isinstance(after, dict):
        found: list[dict[str, Any]] = []
        for name in sorted(set(before) | set(after)):
            place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
            if name not in after:
                found.append({"pointer": place, "before": before[name]})
            elif name not in before:
                found.append({"pointer": place, "after": after[name]})
            else:
                found += payload_diff(before[name], after[name], place)
        return found[:DIFFERENCES_SHOWN]
    return (
        []
        if before == after and type(before) is type(after)
        else [{"pointer": pointer, "before": before, "after": after}]
    )


def _validate_alike(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    for name in sorted(set(before) ^ set(after)):
        raise InvalidEvent(f"The field {name[:100]!r} is {'missing' if name in before else 'unknown'}.")
    for name, value in after.items():
        if before[name] is not None and _kind(value) != _kind(before[name]):
            raise InvalidEvent(f"The field {name[:100]!r} must be of the kind {_kind(before[name])}.")
        if _has_new_null(before[name], value):
            raise InvalidEvent(f"The field {name[:100]!r} must hold null only where it did.")


def _has_new_null(before: Any, after: Any) -> bool:
    """Whether null stands somewhere in ``after`` where there was a value, or nothing, in ``before``."""
    if isinstance(after, dict):
        old = before if isinstance(before, dict) else {}
        return any(_has_new_null(old.get(name, ""), value) for name, value in after.items())
    if isinstance(after, list):
        rest = before if isinstance(before, list) else []
        return any(_has_new_null(old, value) for old, value in zip_longest(rest[: len(after)], after, fillvalue=""))
    return after is None and before is not None


def _original(delivery: Delivery) -> dict[str, Any]:
    """The event as it was published; its copy in the delivery, when retention has taken it."""
    event = StoredEvent.objects.filter(pk=delivery.event_id).first()
    if event is None:
        envelope: dict[str, Any] = delivery.envelope
        return envelope
    names = ("topic", "type", "aggregate_type", "aggregate_id", "schema_version", "correlation_id")
    found = {name: getattr(event, name) for name in names}
    return {
        **found,
        "uid": str(event.uid),
        "payload": orjson.loads(event.payload),
        "headers": orjson.loads(event.headers),
    }


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "number"
    kinds: dict[type[Any], str] = {str: "text", list: "list", dict: "object"}
    return kinds.get(type(value), "null")
