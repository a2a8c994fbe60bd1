"""Every change of a customer that somebody asks for: made here, or protected, in every integration too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from customers.changing import MUTABLE, Versions, create_here, delete_here, update_here
from customers.events import Priority
from customers.models import Customer
from customers.sagas.protected import created, deleted, updated


def customer_create(
    *,
    name: str | None = None,
    email: str | None = None,
    phone: str | None = None,
    address: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
    origin: str = "api",
    priority: Priority = "interactive",
    customer_id: UUID | None = None,
    protected: bool = False,
    idempotency_key: str | None = None,
    actor: str = "system",
) -> Customer:
    """Create a customer of values that are valid (see ``customers.values``, or as an integration holds them).

    Args:
        origin: where it came from: api, console, import, or the name of an integration.
        priority: how soon integrations should hear of it.
        customer_id: its id; None makes one.
        protected: return only when every integration has the customer too, or nobody has it; see
            ``customers.sagas.protected`` for what else is raised then. Outside of any transaction.
        idempotency_key: with ``protected``: the same key of the same ``actor`` means one effect and one outcome.
        actor: who asks, as ``actor_of`` names them.

    Raises:
        EmailTaken: an active customer has this e-mail, in whatever case.
        CustomerBusy: a protected change is about to give somebody this e-mail.
    """
    fields = {"name": name, "email": email, "phone": phone, "address": address, "metadata": metadata}
    if protected:
        return created(values=fields, origin=origin, priority=priority, actor=actor, idempotency_key=idempotency_key)
    _refuse_key(idempotency_key)
    return create_here(values=fields, origin=origin, priority=priority, customer_id=customer_id)


def customer_update(
    *,
    customer_id: UUID,
    changes: Mapping[str, Any],
    if_version: Versions = None,
    origin: str = "api",
    priority: Priority = "interactive",
    protected: bool = False,
    idempotency_key: str | None = None,
    actor: str = "system",
) -> Customer:
    """Set the fields of ``changes``; when none of them differs, nothing is written and nothing published.

    Args:
        changes: valid values by field; fields that are not there stay.
        if_version: the change is made only of this version, or of one of these; None: of any.
        protected, idempotency_key, actor: as in ``customer_create``.

    Raises:
        CustomerNotFound: there never was one.
        CustomerDeleted: it was deleted.
        VersionMismatch: it has another version.
        EmailTaken: another active customer has the e-mail.
        CustomerBusy: a protected change of it, or for its new e-mail, is under way.
    """
    if unknown := changes.keys() - set(MUTABLE):
        raise TypeError(f"A customer has no mutable fields {sorted(unknown)}")
    if protected:
        return updated(
            customer_id=customer_id,
            changes=changes,
            if_version=if_version,
            origin=origin,
            priority=priority,
            actor=actor,
            idempotency_key=idempotency_key,
        )
    _refuse_key(idempotency_key)
    return update_here(
        customer_id=customer_id, changes=changes, if_version=if_version, origin=origin, priority=priority
    )


def customer_delete(
    *,
    customer_id: UUID,
    if_version: Versions = None,
    origin: str = "api",
    priority: Priority = "interactive",
    protected: bool = False,
    idempotency_key: str | None = None,
    actor: str = "system",
) -> Customer:
    """Delete a customer: the row stays for the record, its e-mail is free again, and nothing changes it any more.

    Args:
        protected, idempotency_key, actor: as in ``customer_create``.

    Raises:
        CustomerNotFound: there never was one.
        CustomerDeleted: it was deleted before.
        VersionMismatch: it has another version than ``if_version``.
        CustomerBusy: a protected change of it is under way.
    """
    if protected:
        return deleted(
            customer_id=customer_id,
            if_version=if_version,
            origin=origin,
            priority=priority,
            actor=actor,
            idempotency_key=idempotency_key,
        )
    _refuse_key(idempotency_key)
    return delete_here(customer_id=customer_id, if_version=if_version, origin=origin, priority=priority)


def _refuse_key(idempotency_key: str | None) -> None:
    if idempotency_key is not None:
        raise TypeError("idempotency_key goes with protected=True; see operations.idempotency for other functions")
