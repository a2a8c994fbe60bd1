"""One record or customer, looked at again by itself: is there a difference, and may it be mended by rule?

The record is fetched while the sync state is at rest, and the state must not have moved when the answer is there; else
what was seen may be a change of ours on its way, and nothing is said. So a late write is never taken for drift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from customers.integrations import Fields, Integration, RemoteRecord
from customers.models import Conflict, Customer, Drift, Saga, SyncRequest, SyncState, Webhook
from customers.reconciling.comparing import reference_of
from customers.reconciling.conf import reconcile_settings
from customers.reconciling.findings import Finding, Kind, Repair, fields_differing
from customers.sync.fields import customer_fields, root_of

Status = SyncState.Status
Call = Callable[[Callable[[], Any]], Any]

_SKEW: Final = timedelta(minutes=1)
_HERE: Final = "It would be deleted there, for good."


@dataclass(frozen=True, slots=True)
class _Rest:
    """What a state at rest looks like; it moved if any of this did."""

    state_id: int | None
    token: int = 0
    pokes: int = 0


def record_examine(integration: Integration, remote_id: str, *, call: Call) -> Finding | None:
    """Look at one remote record and its customer; None when there is no difference, or somebody is at work on it.

    Args:
        call: makes one call to the integration, within its rate.

    Raises:
        IntegrationError: it could not be fetched.
    """
    before = _at_rest(integration, remote_id)
    if before is None:
        return None
    record: RemoteRecord | None = call(lambda: integration.retrieve(remote_id=remote_id))
    if _at_rest(integration, remote_id) != before:
        return None
    found = _Examination(integration, remote_id, record, call).finding()
    # Whether it may be deleted is a call of its own; the state must still be where it was.
    if found is None or _at_rest(integration, remote_id) != before:
        return None
    return replace(found, marks=(before.token, before.pokes)) if found.state_id == before.state_id else found


def unpushed_examine(integration: Integration, customer_id: UUID) -> Finding | None:
    """Look at a customer that has no record there, unless a person is asked whether one that is there is its own."""
    customer = Customer.objects.active().filter(pk=customer_id).first()
    state = SyncState.objects.filter(integration=integration.name, customer=customer_id).first()
    if customer is None or (state is not None and (state.remote_id is not None or is_busy(state))):
        return None
    if state is not None and state.status in (Status.FAILED, Status.CONFLICT):
        # Known, and shown as what it is.
        return None
    whose: dict[str, Any] = {"integration": integration.name, "account": integration.account}
    if Drift.objects.proposes_link(**whose, livemode=integration.livemode, customer_id=customer_id):
        # Creating one there would make a second record, and the link impossible.
        return None
    return Finding(
        kind=Kind.MISSING_THERE,
        customer_id=customer_id,
        state_id=state.pk if state else None,
        detail="It was never created there.",
        repair=Repair.LOOK_AGAIN,
    )


def is_busy(state: SyncState) -> bool:
    """Whether somebody is at work on a state, or about to be; a protected change is until it has ended."""
    if state.dirty_at is not None or state.is_worked_on or state.saga_id is not None:
        return True
    return SyncRequest.objects.in_flight().filter(state=state).exists()


def _at_rest(integration: Integration, remote_id: str) -> _Rest | None:
    """The marks of a record's state; None while it is worked on or a message about it waits."""
    waiting = Webhook.objects.pending().filter(integration=integration.name, remote_id=remote_id).exists()
    state = _state_of(integration, remote_id)
    if waiting or (state is not None and is_busy(state)):
        return None
    return _Rest(state.pk, state.lease_token, state.poke_count) if state else _Rest(None)


def _state_of(integration: Integration, remote_id: str) -> SyncState | None:
    return (
        SyncState.objects.select_related("customer")
        .filter(
            integration=integration.name,
            account=integration.account,
            livemode=integration.livemode,
            remote_id=remote_id,
        )
        .first()
    )


class _Examination:
    """One record, what is known of it here, and what follows."""

    def __init__(self, integration: Integration, remote_id: str, record: RemoteRecord | None, call: Call) -> None:
        self._integration = integration
        self._remote_id = remote_id
        self._record = record
        self._call = call
        self._config = reconcile_settings()
        self._state = _state_of(integration, remote_id)

    def finding(self) -> Finding | None:
        state, record = self._state, self._record
        if state is None:
            return None if record is None or record.deleted else self._named(record, None)
        if state.customer is None:
            return self._unlinked(state)
        if record is None or record.deleted:
            return self._gone_there(state, state.customer, known=record is not None)
        if state.customer.deleted_at is not None:
            return self._alive_there(state, state.customer, record)
        return self._fields(state, state.customer, record)

    def _named(self, record: RemoteRecord, state: SyncState | None) -> Finding:
        """A living record that is linked to nobody: whom does it name?"""
        reference = reference_of(record)
        customer = Customer.objects.filter(pk=reference).first() if reference else None
        if customer is None and reference and Saga.objects.undone_creates(reference).exists():
            detail = "It was made by a protected change that was undone."
            return self._spare(
                Kind.TOMBSTONE, detail, record, made_by_us=True, state_id=state.pk if state is not None else None
            )
        if customer is None:
            return self._nobody(record, state)
        theirs = SyncState.objects.filter(integration=self._integration.name, customer=customer).first()
        made_by_us = self._is_ours(theirs, record)
        about: dict[str, Any] = {"customer_id": customer.pk, "state_id": state.pk if state else None}
        if customer.deleted_at is None and (theirs is None or theirs.remote_id is None):
            return self._found(
                Kind.UNLINKED,
                "It carries the customer's id, but the link is not known here.",
                repair=Repair.LINK,
                why_not="" if made_by_us else "The id in its metadata may be a copy.",
                **about,
            )
        kind = Kind.TOMBSTONE if customer.deleted_at is not None else Kind.DUPLICATE_LINK
        detail = (
            "It was made for a customer that is deleted here."
            if kind == Kind.TOMBSTONE
            else f"It carries the id of a customer that is linked to {theirs.remote_id if theirs else 'another one'}."
        )
        return self._spare(kind, detail, record, made_by_us=made_by_us, **about)

    def _nobody(self, record: RemoteRecord, state: SyncState | None) -> Finding:
        """A living record that names none of our customers."""
        if state is None:
            return self._found(Kind.MISSING_HERE, "It is not in the catalogue.", repair=Repair.IMPORT)
        email = str(record.fields.get("email") or "")
        same = Customer.objects.active().with_email(email).first() if email else None
        if same is None:
            return self._found(
                Kind.MISSING_HERE, "It can be imported now.", repair=Repair.LOOK_AGAIN, state_id=state.pk
            )
        theirs = SyncState.objects.filter(integration=self._integration.name, customer=same).first()
        about: dict[str, Any] = {"customer_id": same.pk, "state_id": state.pk}
        if theirs is None or theirs.remote_id is None:
            detail = "A customer here has the same e-mail and no record there."
            why = "An e-mail alone does not say that both are the same."
            return self._found(Kind.UNLINKED, detail, repair=Repair.LINK, why_not=why, **about)
        detail = f"A customer here has the same e-mail and is linked to {theirs.remote_id}."
        why = "Records are never merged: merge or delete the spare one there, or give it another e-mail."
        return self._found(Kind.UNLINKED, detail, why_not=why, **about)

    def _unlinked(self, state: SyncState) -> Finding | None:
        """A record that is known here and linked to nobody."""
        record = self._record
        if record is None or record.deleted:
            if state.status == Status.DELETED:
                return None
            return self._found(Kind.TOMBSTONE, "It is gone there.", repair=Repair.LOOK_AGAIN, state_id=state.pk)
        if state.status == Status.DELETED or self._asked(state, Conflict.Kind.REFUSED_HERE):
            return None
        return self._named(record, state)

    def _gone_there(self, state: SyncState, customer: Customer, *, known: bool) -> Finding | None:
        about: dict[str, Any] = {"customer_id": customer.pk, "state_id": state.pk}
        if customer.deleted_at is not None:
            if state.status == Status.DELETED:
                return None
            return self._found(Kind.TOMBSTONE, "It is gone on both sides.", repair=Repair.LOOK_AGAIN, **about)
        if not known:
            detail = "The integration does not know the id that is kept here."
            why = "It may be the key of another account, or a backup: creating all anew would make second records."
            return self._found(Kind.MISSING_THERE, detail, repair=Repair.CREATE_THERE, why_not=why, **about)
        if self._asked(state, Conflict.Kind.REMOTE_DELETED):
            return None
        archives = self._integration.remote_delete_policy != "conflict"
        return self._found(
            Kind.TOMBSTONE, "It was deleted there.", repair=Repair.LOOK_AGAIN, destroys=archives, **about
        )

    def _alive_there(self, state: SyncState, customer: Customer, record: RemoteRecord) -> Finding | None:
        about: dict[str, Any] = {"customer_id": customer.pk, "state_id": state.pk}
        if self._asked(state, Conflict.Kind.DELETE_REFUSED):
            return None
        if self._integration.delete_policy == "unlink":
            if state.status == Status.DELETED:
                return None
            return self._found(Kind.TOMBSTONE, "It was deleted here.", repair=Repair.LOOK_AGAIN, **about)
        made = SyncRequest.objects.filter(
            state=state, method=SyncRequest.Method.CREATE, outcome__in=["succeeded", "adopted"]
        ).exists()
        why = ""
        if not made:
            why = f"It was not made from here. {_HERE}"
        elif state.status == Status.DELETED:
            why = f"It was unlinked on purpose, or by another policy than that of now. {_HERE}"
        elif not self._is_old(customer.deleted_at):
            why = f"It was deleted here of late. {_HERE}"
        return self._destroying(Kind.TOMBSTONE, "It was deleted here.", Repair.LOOK_AGAIN, why, **about)

    def _spare(self, kind: Drift.Kind, detail: str, record: RemoteRecord, *, made_by_us: bool, **about: Any) -> Finding:
        why = ""
        if self._integration.delete_policy == "unlink":
            why = f"The policy is to delete nothing there. {_HERE}"
        elif not made_by_us:
            why = f"No request of ours made it: the id in its metadata may be a copy. {_HERE}"
        elif not self._is_old(record.created_at):
            why = f"It is young. {_HERE}"
        return self._destroying(kind, detail, Repair.DELETE_THERE, why, **about)

    def _destroying(self, kind: Drift.Kind, detail: str, repair: Drift.Repair, why: str, **about: Any) -> Finding:
        if not why and (lost := self._call(lambda: self._integration.delete_obstacle(remote_id=self._remote_id))):
            why = str(lost)
        return self._found(kind, detail, repair=repair, destroys=True, why_not=why, **about)

    def _fields(self, state: SyncState, customer: Customer, record: RemoteRecord) -> Finding | None:
        ours, theirs = self._held(customer_fields(customer, self._integration.roots)), self._held(record.fields)
        asked = {
            (conflict.field, _plain(conflict.ours), _plain(conflict.theirs)) for conflict in state.conflicts.open()
        }
        fields = [
            row
            for row in fields_differing(state.base, ours, theirs)
            if (row["field"], _plain(row["ours"]), _plain(row["theirs"])) not in asked
        ]
        if not fields:
            return self._copied(state, customer, record)
        names = ", ".join(row["field"] for row in fields)
        return self._found(
            Kind.FIELD_DIFFERENCE,
            f"Not the same on both sides: {names}."[:500],
            repair=Repair.LOOK_AGAIN,
            fields=fields,
            customer_id=customer.pk,
            state_id=state.pk,
        )

    def _copied(self, state: SyncState, customer: Customer, record: RemoteRecord) -> Finding | None:
        """A record that is linked to one customer and carries the id of another one that is here."""
        reference = reference_of(record)
        if reference in (None, customer.pk) or not Customer.objects.active().filter(pk=reference).exists():
            return None
        detail = f"It carries the id of another customer, {reference}; the link that is kept here counts."
        why = "Take the id out of its metadata there, or leave it."
        return self._found(Kind.DUPLICATE_LINK, detail, why_not=why, customer_id=customer.pk, state_id=state.pk)

    def _found(self, kind: Drift.Kind, detail: str, **more: Any) -> Finding:
        return Finding(kind=kind, remote_id=self._remote_id, detail=detail, **more)

    def _is_ours(self, state: SyncState | None, record: RemoteRecord) -> bool:
        """Whether a create of ours made it: one for this very customer, sent at that time, whose outcome was in doubt.

        A create that succeeded with its first send made the record that is linked, and no other.
        """
        if state is None or record.created_at is None:
            return False
        sent = Q(first_sent_at__lte=record.created_at + _SKEW, last_sent_at__gte=record.created_at - _SKEW)
        doubtful = Q(sends__gt=1) | Q(outcome__in=[SyncRequest.Outcome.ABANDONED, SyncRequest.Outcome.ADOPTED])
        return SyncRequest.objects.filter(sent, doubtful, state=state, method=SyncRequest.Method.CREATE).exists()

    def _is_old(self, moment: datetime | None) -> bool:
        return moment is not None and (timezone.now() - moment).total_seconds() >= self._config.min_age

    def _asked(self, state: SyncState, kind: Conflict.Kind) -> bool:
        return state.conflicts.open().filter(kind=kind).exists()

    def _held(self, fields: Fields) -> Fields:
        return {name: value for name, value in fields.items() if root_of(name) in self._integration.roots}


def _plain(value: Any) -> str:
    return repr(sorted(value.items()) if isinstance(value, dict) else value)
