"""Customers as Stripe writes them, and back to canonical fields.

Unsetting is the empty string in Stripe. Its documentation does not say whether an address in an update is merged into
the present one, so an update always names all six of its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from customers.emails import email_with_ascii_domain, email_with_unicode_domain
from customers.integrations import Changes, Fields, RemoteRecord
from customers.sync.fields import METADATA, fields_make
from customers.values import ADDRESS_KEYS, METADATA_KEY_OURS

# Our customer's id. It is written at the creation only; the link between both sides is the sync state, never this:
# people copy metadata.
REFERENCE: Final = METADATA_KEY_OURS


def create_body(*, reference: str, fields: Fields) -> dict[str, Any]:
    """Parameters that create a customer."""
    body = update_body(changes=fields)
    if "address" in body:
        body["address"] = {key: value for key, value in body["address"].items() if value}
    body["metadata"] = {**body.get("metadata", {}), REFERENCE: reference}
    return body


def update_body(*, changes: Changes) -> dict[str, Any]:
    """Parameters that change just these fields."""
    body: dict[str, Any] = {}
    for field, value in changes.items():
        if field.startswith(METADATA):
            body.setdefault("metadata", {})[field.removeprefix(METADATA)] = value or ""
        elif isinstance(value, dict):
            body[field] = {key: value.get(key, "") for key in ADDRESS_KEYS}
        elif field == "email":
            # Stripe takes no other letters than ASCII's in a domain.
            body[field] = email_with_ascii_domain(str(value or ""))
        else:
            body[field] = value or ""
    return body


def record_of(customer: Mapping[str, Any], *, deleted: bool = False) -> RemoteRecord:
    """A customer object of Stripe's as a record; also the stub that is left of a deleted one."""
    # Whole accounts pass here, so nothing is built of what is empty, as it mostly is.
    metadata, address = _mapping(customer.get("metadata")), _mapping(customer.get("address"))
    email = customer.get("email")
    return RemoteRecord(
        remote_id=str(customer.get("id") or ""),
        fields=fields_make(
            name=customer.get("name"),
            email=email_with_unicode_domain(str(email)) if email else None,
            phone=customer.get("phone"),
            address=address and {key: address[key] for key in ADDRESS_KEYS if key in address},
            metadata=metadata and {key: value for key, value in metadata.items() if key != REFERENCE},
        ),
        deleted=deleted or customer.get("deleted") is True,
        reference=str(metadata.get(REFERENCE) or ""),
        created_at=_moment(customer.get("created")),
    )


def _moment(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int) else None


def _mapping(value: object) -> Mapping[str, Any]:
    # Mostly there is nothing, or a plain mapping: the question whether it is any other costs more than all the rest.
    if not value:
        return {}
    return value if type(value) is dict or isinstance(value, Mapping) else {}
