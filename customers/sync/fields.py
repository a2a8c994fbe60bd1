"""The canonical form in which both sides are compared: flat fields, nothing empty, nothing unstorable.

Metadata is one field per key (``metadata.plan``), so two people who change different keys never collide. An address
is one field: half of one address and half of another is nobody's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from customers.integrations import Fields, Value
from customers.models import Customer

METADATA = "metadata."


def text_clean(value: object) -> str:
    """Text that PostgreSQL can store: NUL and lone surrogates are replaced by U+FFFD."""
    text = str(value or "")
    if text.isascii() and "\x00" not in text:
        # Nearly all of it, and whole accounts pass here.
        return text
    return str(value).replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8") if value else ""


def fields_make(
    *,
    name: object = None,
    email: object = None,
    phone: object = None,
    address: Mapping[str, object] | None = None,
    metadata: Mapping[str, object] | None = None,
) -> Fields:
    """Fields from the parts of a customer; what is empty is left out."""
    fields: Fields = {}
    for root, value in (("name", name), ("email", email), ("phone", phone)):
        if value and (text := text_clean(value)):
            fields[root] = text
    if address and (lines := {str(key): text_clean(value) for key, value in sorted(address.items()) if value}):
        fields["address"] = lines
    if metadata:
        for key, value in sorted(metadata.items()):
            if text := text_clean(value):
                fields[METADATA + text_clean(key)] = text
    return fields


def root_of(field: str) -> str:
    """``metadata`` for ``metadata.plan``; the field itself otherwise."""
    return field.partition(".")[0]


def customer_fields(customer: Customer, roots: Collection[str]) -> Fields:
    """The fields of a customer of the catalogue that an integration can hold."""
    fields = fields_make(
        name=customer.name,
        email=customer.email,
        phone=customer.phone,
        address=customer.address,
        metadata=customer.metadata,
    )
    return {field: value for field, value in fields.items() if root_of(field) in roots}


def customer_changes(customer: Customer, pulled: Mapping[str, Value | None]) -> dict[str, Any]:
    """What ``customer_update`` must be told so that ``pulled`` holds; None empties a field."""
    changes: dict[str, Any] = {}
    metadata = dict(customer.metadata)
    for field, value in pulled.items():
        if field.startswith(METADATA):
            key = field.removeprefix(METADATA)
            if value is None:
                metadata.pop(key, None)
            else:
                metadata[key] = value
            changes["metadata"] = metadata
        elif field == "address":
            changes["address"] = value or {}
        else:
            changes[field] = value
    return changes


def fields_hash(fields: Mapping[str, Value]) -> str:
    """SHA-256 of the fields, the same whatever their order."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def fields_advance(base: Fields | None, sides: Mapping[str, Value | None], keys: Iterable[str]) -> Fields:
    """A base in which exactly ``keys`` have the value that ``sides`` has; absent or None removes them."""
    advanced = dict(base or {})
    for key in keys:
        value = sides.get(key)
        if value is None:
            advanced.pop(key, None)
        else:
            advanced[key] = value
    return advanced
