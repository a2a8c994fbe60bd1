"""A change of a customer here: the row and its event in one transaction, or neither.

What ``customers.services`` offers to everybody, the synchronisation and the end of a protected change do with these.

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
from uuid_utils.compat import uuid7

from customers.errors import CustomerBusy, CustomerDeleted, CustomerNotFound, EmailTaken, VersionMismatch
from customers.events import CREATED, DELETED, UPDATED, Priority, customer_event
from customers.locks import customer_lock, email_lock
from customers.models import Customer
from dbresilience.transactions import run_in_transaction
from operations.locks.rows import lock_holder
from outbox.publishing import publish

MUTABLE: Final = ("name", "email", "phone", "address", "metadata")
EMAIL_CONSTRAINT: Final = "customers_customer_email_active_uniq"

Versions = int | Collection[int] | None


def create_here(
    *,
    values: Mapping[str, Any],
    origin: str,
    priority: Priority,
    customer_id: UUID | None = None,
) -> Customer:
    """Create a customer.

    Args:
        values: valid values by field, as ``MUTABLE`` names them; what is not there is empty.
        origin, priority, customer_id: as in ``customers.services.customer_create``.

    Raises:
        EmailTaken: an active customer has this e-mail, in whatever case.
        CustomerBusy: a protected change is about to give somebody this e-mail.
    """

    def work() -> Customer:
        now = timezone.now()
        email = values.get("email")
        customer = Customer(
            id=customer_id or uuid7(),
            name=values.get("name"),
            email=email,
            phone=values.get("phone"),
            address=dict(values.get("address") or {}),
            metadata=dict(values.get("metadata") or {}),
            created_at=now,
            updated_at=now,
        )
        if not Customer.objects.insert_unless_taken([customer]):
            if email and lock_holder(email_lock(email)):
                raise CustomerBusy
            raise EmailTaken
        changed = [field for field in MUTABLE if values.get(field)]
        event = customer_event(customer, type=CREATED, changed=changed, origin=origin, priority=priority)
        customer.event_id = publish(event)
        return customer

    return _written(work)


def update_here(
    *,
    customer_id: UUID,
    changes: Mapping[str, Any],
    if_version: Versions = None,
    origin: str,
    priority: Priority,
) -> Customer:
    """Set the fields of ``changes``; when none of them differs, nothing is written and nothing published.

    Args:
        changes: valid values by field, as ``MUTABLE`` names them; fields that are not there stay.
        if_version: the change is made only of this version, or of one of these; None: of any.
        origin, priority: as in ``customers.services.customer_create``.

    Raises:
        CustomerNotFound: there never was one.
        CustomerDeleted: it was deleted.
        VersionMismatch: it has another version.
        EmailTaken: another active customer has the e-mail.
        CustomerBusy: a protected change of it, or for its new e-mail, is under way.
    """

    def work() -> Customer:
        customer = customer_locked(customer_id, if_version)
        customer_is_free(customer, changes.get("email"))
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


def delete_here(
    *,
    customer_id: UUID,
    if_version: Versions = None,
    origin: str,
    priority: Priority,
) -> Customer:
    """Delete a customer: the row stays for the record, its e-mail is free again, and nothing changes it any more.

    Args:
        if_version, origin, priority: as above.

    Raises:
        CustomerNotFound: there never was one.
        CustomerDeleted: it was deleted before.
        VersionMismatch: it has another version than ``if_version``.
        CustomerBusy: a protected change of it is under way.
    """

    def work() -> Customer:
        customer = customer_locked(customer_id, if_version)
        customer_is_free(customer)
        customer.deleted_at = timezone.now()
        _advance(customer, ["deleted_at"])
        event = customer_event(customer, type=DELETED, changed=["deleted"], origin=origin, priority=priority)
        customer.event_id = publish(event)
        return customer

    return _written(work)


def customer_locked(customer_id: UUID, if_version: Versions) -> Customer:
    """The customer, its row locked until the transaction under way ends, if it may be changed.

    Raises:
        CustomerNotFound, CustomerDeleted, VersionMismatch: as the functions above.
    """
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


def customer_is_free(customer: Customer, email: str | None = None) -> None:
    """Whether no protected change is under way, asked when the row is locked.

    A protected change locks the row too before it takes its locks. So either it came before, and its locks are seen
    here, or it waits for this transaction and begins with what is written here.

    Args:
        email: which it is about to get, if it is another one.

    Raises:
        CustomerBusy: one is under way.
    """
    names = [customer_lock(customer.pk)]
    if email and email != customer.email:
        names.append(email_lock(email))
    if lock_holder(*names):
        raise CustomerBusy


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
