"""Every change of a customer: the row and its event in one transaction, or neither.

Concurrency: two writers of one customer take turns at its row lock, two writers of one e-mail at the unique index,
whose violation is the only judge of a duplicate (looking first could not be trusted). Inside an outer transaction each
function is a savepoint of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NoReturn
from uuid import UUID

import psycopg
from django.db import IntegrityError
from django.utils import timezone

from customers.errors import CustomerDeleted, CustomerNotFound, EmailTaken, VersionMismatch
from customers.events import CREATED, DELETED, UPDATED, Priority, customer_event
from customers.models import Customer
from dbresilience.transactions import run_in_transaction
from outbox.publishing import publish

MUTABLE: Final = ("name", "email", "phone", "address", "metadata")
EMAIL_CONSTRAINT: Final = "customers_customer_email_active_uniq"

Versions = int | Collection[int] | None


def customer_create(
    *,
    name: str | None = None,
    email: str | None = None,
    phone: str | None = None,
    address: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    origin: str = "api",
    priority: Priority = "interactive",
) -> Customer:
    """Create a customer of values that are valid (see ``customers.values``, or as an integration holds them).

    Args:
        origin: where it came from: api, console, import, or the name of an integration.
        priority: how soon integrations should hear of it.

    Raises:
        EmailTaken: an active customer has this e-mail, in whatever case.
    """
    fields = {"name": name, "email": email, "phone": phone, "address": address, "metadata": metadata}

    def work() -> Customer:
        now = timezone.now()
        customer = Customer(
            name=name,
            email=email,
            phone=phone,
            address=dict(address or {}),
            metadata=dict(metadata or {}),
            created_at=now,
            updated_at=now,
        )
        if not Customer.objects.insert_unless_taken([customer]):
            raise EmailTaken
        changed = [field for field in MUTABLE if fields[field]]
        event = customer_event(customer, type=CREATED, changed=changed, origin=origin, priority=priority)
        customer.event_id = publish(event)
        return customer

    return _written(work)


def customer_update(
    *,
    customer_id: UUID,
    changes: Mapping[str, Any],
    if_version: Versions = None,
    origin: str = "api",
    priority: Priority = "interactive",
) -> Customer:
    """Set the fields of ``changes``; when none of them differs, nothing is written and nothing published.

    Args:
        changes: valid values by field; fields that are not there stay.
        if_version: the change is made only of this version, or of one of these; None: of any.

    Raises:
        CustomerNotFound: there never was one.
        CustomerDeleted: it was deleted.
        VersionMismatch: it has another version.
        EmailTaken: another active customer has the e-mail.
    """
    if unknown := changes.keys() - set(MUTABLE):
        raise TypeError(f"A customer has no mutable fields {sorted(unknown)}")

    def work() -> Customer:
        customer = _locked(customer_id, if_version)
        changed = [field for field in MUTABLE if field in changes and changes[field] != getattr(customer, field)]
        if not changed:
            return customer
        for field in changed:
            setattr(customer, field, changes[field])
        _advance(customer, changed)
        event = customer_event(customer, type=UPDATED, changed=changed, origin=origin, priority=priority)
        customer.event_id = publish(event)
        return customer

    return _written(work)


def customer_delete(
    *,
    customer_id: UUID,
    if_version: Versions = None,
    origin: str = "api",
    priority: Priority = "interactive",
) -> Customer:
    """Delete a customer: the row stays for the record, its e-mail is free again, and nothing changes it any more.

    Raises:
        CustomerNotFound: there never was one.
        CustomerDeleted: it was deleted before.
        VersionMismatch: it has another version than ``if_version``.
    """

    def work() -> Customer:
        customer = _locked(customer_id, if_version)
        customer.deleted_at = timezone.now()
        _advance(customer, ["deleted_at"])
        event = customer_event(customer, type=DELETED, changed=["deleted"], origin=origin, priority=priority)
        customer.event_id = publish(event)
        return customer

    return _written(work)


def _locked(customer_id: UUID, if_version: Versions) -> Customer:
    # NO KEY: rows that refer to the customer (sync states) may be written meanwhile.
    customer = Customer.objects.select_for_update(no_key=True).filter(pk=customer_id).first()
    if customer is None:
        raise CustomerNotFound
    if customer.deleted_at is not None:
        raise CustomerDeleted
    wanted = {if_version} if isinstance(if_version, int) else if_version
    if wanted is not None and customer.version not in wanted:
        raise VersionMismatch
    return customer


def _advance(customer: Customer, changed: Collection[str]) -> None:
    customer.version += 1
    # Clocks of two processes may differ; the row's own time never goes back.
    customer.updated_at = max(timezone.now(), customer.updated_at)
    customer.save(update_fields=[*changed, "version", "updated_at"])


def _written(work: Callable[[], Customer]) -> Customer:
    try:
        return run_in_transaction(work)
    except IntegrityError as exc:
        _raise_translated(exc)


def _raise_translated(exc: IntegrityError) -> NoReturn:
    cause = exc.__cause__
    if isinstance(cause, psycopg.Error) and cause.diag.constraint_name == EMAIL_CONSTRAINT:
        raise EmailTaken from exc
    raise exc
