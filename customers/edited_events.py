"""What an operator may make of a customer's event that is edited and published again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from customers.events import CREATED, DELETED, UPDATED
from customers.models import Customer
from customers.values import ADDRESS_KEYS, FIELDS, METADATA_KEY_OURS
from outbox.errors import DecisionRefused

SCHEMA_VERSION: Final = 1
_WIDTHS: Final = {"email": 512, "name": 256, "phone": 20}
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z", re.ASCII)
# Which customer in which state of its life, and where in the order of its changes: consumers decide by them.
_KEPT: Final = ("customer_id", "version", "deleted")


def customer_event_validate(
    type_: str, schema_version: int, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Refuse a payload that is none of ``customers.events.customer_payload``, or of another customer or version.

    Values are held to what the catalogue can keep, not to what its API takes: they may have come from an integration.

    Called in the transaction that publishes, which holds the customer from here on. An erasure comes before, and is
    seen, or after, and redacts what was published.

    Raises:
        DecisionRefused: the customer was erased, or its erasure is under way.
        ValueError: it is refused; the message names the field and quotes no value.
    """
    _refuse_erased(before.get("customer_id"))
    if type_ not in (CREATED, UPDATED, DELETED) or schema_version != SCHEMA_VERSION:
        raise ValueError("The catalogue publishes no events of this type and schema version.")
    for name in (*_KEPT, *_RULES):
        if name not in after:
            raise ValueError(f"The field {name!r} is missing.")
    for name in after:
        if name not in _KEPT and name not in _RULES:
            raise ValueError(f"The field {name[:100]!r} is unknown.")
    for name in _KEPT:
        if name not in before or after[name] != before[name] or type(after[name]) is not type(before[name]):
            raise ValueError(f"The field {name!r} must stay as it was: it says which customer, and which change.")
    for name, rule in _RULES.items():
        if (why := rule(name, after[name])) is not None:
            raise ValueError(f"The field {name!r} {why}.")


def _refuse_erased(customer_id: object) -> None:
    try:
        pk = UUID(str(customer_id))
    except ValueError as exc:
        raise ValueError("The original names no customer.") from exc
    held = Customer.objects.select_for_update(no_key=True).filter(pk=pk).values_list("erased_at", flat=True)
    if any(erased_at is not None for erased_at in held):
        raise DecisionRefused(
            "The customer was erased, so no edited event of it is published. Retry or skip it instead."
        )


def _line(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not _is_text(value) or len(str(value)) > _WIDTHS[name]:
        return f"must be text of 1 to {_WIDTHS[name]} characters, or null"
    return None


def _address(_name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not value or not all(key in ADDRESS_KEYS for key in value):
        return f"must be an object of some of {', '.join(ADDRESS_KEYS)}, or null"
    return None if all(_is_text(part) for part in value.values()) else "must hold text alone; leave out what is not"


def _metadata(_name: str, value: object) -> str | None:
    if not isinstance(value, dict) or not all(_is_text(part) for pair in value.items() for part in pair):
        return "must be an object of texts"
    return "must not hold the key that is ours" if METADATA_KEY_OURS in value else None


def _changed(_name: str, value: object) -> str | None:
    known = isinstance(value, list) and all(isinstance(one, str) and one in (*FIELDS, "deleted") for one in value)
    return None if known else "must be a list of names of fields"


def _instant(_name: str, value: object) -> str | None:
    why = "must be an instant such as 2026-03-01T12:00:00.000000Z"
    if not isinstance(value, str) or not _INSTANT.match(value):
        return why
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return why
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not _UNSTORABLE.search(value)


_RULES: Final[dict[str, Callable[[str, object], str | None]]] = {
    "email": _line,
    "name": _line,
    "phone": _line,
    "address": _address,
    "metadata": _metadata,
    "changed": _changed,
    "updated_at": _instant,
}
