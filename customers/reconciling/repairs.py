"""Repairs, each conditional on what was found: when it is no longer so, nothing is done and the reason is given.

Whatever can go the usual way goes it: the state is marked and the engine looks, with its lease, its one request in
flight and its policies. Only links, and records that belong to nobody, are mended here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from django.db.models.functions import Now

from customers.integrations import Integration, RemoteMissing, RemoteRecord
from customers.models import Conflict, Customer, Drift, Priority, SyncState
from customers.reconciling.examining import is_busy
from customers.reconciling.findings import Repair
from customers.reconciling.importing import records_import
from customers.sync.lease import LeaseLost, lease_locked, lease_take
from customers.sync.pokes import Poke, integration_poke
from dbresilience.transactions import run_in_transaction
from outbox.wakeup import wake

Call = Callable[[Callable[[], Any]], Any]
_LEASE_SECONDS: Final = 60.0


class RepairRefused(Exception):
    """It is no longer as it was found, or somebody is at work on it; nothing was done."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def drift_repair(integration: Integration, drift: Drift, *, call: Call, priority: Priority = Priority.BULK) -> str:
    """Carry the repair out; what was done, in a sentence.

    Args:
        drift: as it was found just now.
        call: makes one call to the integration, within its rate.
        priority: class of the looks that it asks for.

    Raises:
        RepairRefused: nothing was done.
        IntegrationError: a call failed; what it did is found out when the repair is repeated.
    """
    match drift.repair:
        case Repair.LOOK_AGAIN:
            done = _look_again(integration, drift, priority)
        case Repair.IMPORT:
            done = _import(integration, drift, call)
        case Repair.CREATE_THERE:
            done = _create_there(drift, priority)
        case Repair.LINK:
            done = _link(integration, drift, priority)
        case Repair.DELETE_THERE:
            done = _delete_there(integration, drift, call)
        case _:
            raise RepairRefused("There is nothing that could be done from here.")
    wake("sync")
    return done


def _look_again(integration: Integration, drift: Drift, priority: Priority) -> str:
    if drift.state_id is not None:
        if not SyncState.objects.filter(pk=drift.state_id).look_again(priority=priority):
            raise RepairRefused("The sync state is gone.")
    elif drift.customer_id is not None:

        def work() -> None:
            integration_poke(integration, [Poke(drift.customer_id, "reconcile", priority)])  # type: ignore[arg-type]

        run_in_transaction(work)
    return "It is synchronised as usual."


def _import(integration: Integration, drift: Drift, call: Call) -> str:
    record: RemoteRecord | None = call(lambda: integration.retrieve(remote_id=drift.remote_id))
    if record is None or record.deleted:
        raise RepairRefused("It is gone there.")
    found = record
    done = run_in_transaction(lambda: records_import(integration, [found]))
    if done.unlinked:
        return "It stays unlinked: another customer has its e-mail."
    return "It was imported." if done.customers else "It is looked at by itself."


def _create_there(drift: Drift, priority: Priority) -> str:
    def work() -> None:
        state = _locked(drift.state_id)
        if state.remote_id != drift.remote_id or is_busy(state):
            raise RepairRefused("It is being looked at.")
        SyncState.objects.filter(pk=state.pk).update(remote_id=None, base=None, base_hash="")
        state.conflicts.open().filter(kind=Conflict.Kind.REMOTE_MISSING).update(
            status=Conflict.Status.RESOLVED, resolution="created there anew", resolved_at=Now()
        )
        SyncState.objects.filter(pk=state.pk).look_again(priority=priority)
        SyncState.objects.filter(pk=state.pk).update(status=SyncState.Status.PENDING)

    run_in_transaction(work)
    return "It is created there anew."


def _link(integration: Integration, drift: Drift, priority: Priority) -> str:
    def work() -> None:
        # The customer first, then states: the order of every writer. While it is locked no look links it elsewhere.
        whom = {"pk": drift.customer_id}
        customer = Customer.objects.select_for_update(no_key=True).filter(**whom).first()
        if customer is None or customer.deleted_at is not None:
            raise RepairRefused("The customer is gone.")
        whose: dict[str, Any] = {"integration": integration.name}
        what = {"account": integration.account, "livemode": integration.livemode, "remote_id": drift.remote_id}
        rows = list(
            SyncState.objects.select_for_update(no_key=True)
            .filter(**whose)
            .filter(pk__in=[*_ids(whose | {"customer": customer}), *_ids(whose | what)])
            .order_by("pk")
        )
        mine = next((row for row in rows if row.customer_id == customer.pk), None)
        spare = next((row for row in rows if row.remote_id == drift.remote_id), None)
        if mine is not None and mine.remote_id is not None:
            raise RepairRefused("The customer is linked to another record by now.")
        if spare is not None and spare.customer_id is not None:
            raise RepairRefused("The record is linked to another customer by now.")
        if any(is_busy(row) for row in (mine, spare) if row is not None):
            raise RepairRefused("It is being looked at.")
        if spare is not None:
            spare.delete()
        if mine is None:
            mine = SyncState.objects.create(**whose, **what, customer=customer, priority=priority)
        # Without a base nothing is overwritten: what only one side has goes to the other, and what both have and is
        # not the same is a question for a person.
        SyncState.objects.filter(pk=mine.pk).update(**what, base=None, base_hash="", status=SyncState.Status.PENDING)
        mine.conflicts.open().filter(kind__in=[Conflict.Kind.SAME_EMAIL, Conflict.Kind.SEVERAL]).update(
            status=Conflict.Status.RESOLVED, resolution="linked", resolved_at=Now()
        )
        SyncState.objects.filter(pk=mine.pk).look_again(priority=priority)

    run_in_transaction(work)
    return "They are linked; what differs is merged."


def _delete_there(integration: Integration, drift: Drift, call: Call) -> str:
    """Delete a record that belongs to nobody, under the lease of its own unlinked state: no look can link it then."""
    what = {"integration": integration.name, "account": integration.account, "livemode": integration.livemode}
    state, _ = SyncState.objects.get_or_create(
        **what, remote_id=drift.remote_id, defaults={"status": SyncState.Status.ORPHANED, "priority": Priority.BULK}
    )
    if state.customer_id is not None:
        raise RepairRefused("The record is linked to a customer by now.")
    lease = lease_take(state.pk, seconds=_LEASE_SECONDS)
    if lease is None:
        raise RepairRefused("It is being looked at.")
    try:
        if lost := call(lambda: integration.delete_obstacle(remote_id=drift.remote_id)):
            raise RepairRefused(str(lost))
        # Missing: an earlier attempt, or somebody else, deleted it.
        with suppress(RemoteMissing):
            call(lambda: integration.delete(remote_id=drift.remote_id, key=f"drift-{drift.pk}"))
        ended = {"status": SyncState.Status.DELETED, "dirty_at": None, "last_success_at": Now()}
    except BaseException:
        _give_back(lease, {})
        raise
    if not _give_back(lease, ended):
        return "It was deleted there; somebody looks at it."
    return "It was deleted there."


def _give_back(lease: Any, values: dict[str, Any]) -> bool:
    def work() -> None:
        state = lease_locked(lease)
        released = {"lease_until": None, "lease_owner": "", "next_attempt_at": Now(), "updated_at": Now()}
        if values:
            state.conflicts.open().update(
                status=Conflict.Status.RESOLVED, resolution="deleted there", resolved_at=Now()
            )
        SyncState.objects.filter(pk=state.pk).update(**released, **values)

    try:
        run_in_transaction(work)
    except LeaseLost:
        return False
    return True


def _locked(state_id: int | None) -> SyncState:
    state = SyncState.objects.select_for_update(no_key=True).filter(pk=state_id or 0).first()
    if state is None:
        raise RepairRefused("The sync state is gone.")
    return state


def _ids(where: dict[str, Any]) -> list[int]:
    return list(SyncState.objects.filter(**where).values_list("pk", flat=True))
