"""One look at a sync state: fetch the other side without a lock, then decide under the lock of both rows.

After a look in which something must be sent there is a frozen request; after any other the row is settled. Everything
that a look changes here (pulled fields with their event, base, conflicts, the frozen request) commits in the one
transaction that decided it, so a crash leaves either all of it or none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from django.db import DataError, IntegrityError

from customers.changing import create_here, delete_here, update_here
from customers.errors import CustomerBusy, CustomerError, EmailTaken
from customers.events import Priority as EventPriority
from customers.integrations import Fields, RemoteRecord, RetryableError, Value
from customers.models import Conflict, Customer, Priority, SyncRequest, SyncState
from customers.sync.fields import customer_changes, customer_fields, fields_advance, root_of
from customers.sync.lease import lease_locked
from customers.sync.merge import Merge, merge
from customers.sync.requests import Method, request_freeze
from customers.sync.settle import BLOCKING, Question, base_columns, questions_keep, settle
from customers.sync.work import Work
from dbresilience.transactions import run_in_transaction
from operations.identifiers import uuid_of

Kind = Conflict.Kind
Status = SyncState.Status


class Look(Enum):
    """How a look ended when nothing is to be sent."""

    SETTLED = "settled"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Frozen:
    """A request that this look decided on, and what the record must be after it."""

    request: SyncRequest
    expected: Fields = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read without a lock."""

    version: int | None
    remote: RemoteRecord | None
    obstacle: str


def look(work: Work, state: SyncState) -> Look | Frozen:
    """Look at both sides once.

    Args:
        state: the row and its customer, read without a lock after the last request was resolved.

    Returns:
        SETTLED, MOVED when the customer changed during the fetch, or the request that must now be sent.
    """
    customer, integration = state.customer, work.integration
    remote, obstacle = None, ""
    if state.remote_id is not None:
        remote_id = state.remote_id
        remote = work.call(lambda: integration.retrieve(remote_id=remote_id))
        alive = remote is not None and not remote.deleted
        if alive and customer is not None and customer.deleted_at and integration.delete_policy == "refuse":
            obstacle = work.call(lambda: integration.delete_obstacle(remote_id=remote_id))
    work.step("fetched")
    seen = _Seen(customer.version if customer else None, remote, obstacle)
    result = run_in_transaction(lambda: _decide(work, state.customer_id, seen))
    work.step("decided")
    return result


def _decide(work: Work, customer_id: UUID | None, seen: _Seen) -> Look | Frozen:
    # The customer first, then the state: the order of every writer here. While the customer is locked its version
    # cannot move, so what is decided holds until the commit. NO KEY leaves the poke's foreign key check alone.
    customer = None
    if customer_id is not None:
        customer = Customer.objects.select_for_update(no_key=True).get(pk=customer_id)
    state = lease_locked(work.lease)
    if customer is None:
        return _import(work, state, seen.remote)
    if customer.version != seen.version:
        # It was changed during the fetch. Whatever was fetched may be older than what this change was based on.
        return Look.MOVED
    if customer.deleted_at is not None:
        return _delete_there(work, state, seen)
    if state.remote_id is None:
        return _create_there(work, state, customer)
    if seen.remote is None:
        # Not "deleted": the integration never heard of the id, as after a change of keys. Nothing is deleted for that.
        questions_keep(state, [Question(Kind.REMOTE_MISSING, theirs={"remote_id": state.remote_id})])
        settle(work, state, status=Status.ORPHANED)
        return Look.SETTLED
    if seen.remote.deleted:
        return _delete_here(work, state, customer)
    return _merge(work, state, customer, seen.remote)


def _import(work: Work, state: SyncState, remote: RemoteRecord | None) -> Look:
    """A remote record that is linked to nobody becomes a customer of its own, unless a person must say whose it is."""
    if remote is None or remote.deleted:
        questions_keep(state, [])
        settle(work, state, status=Status.DELETED)
        return Look.SETTLED
    if (named := _named(work, remote)) is not None:
        question = Question(
            Kind.NAMES_ANOTHER,
            ours={"customer_id": str(named)},
            theirs={"remote_id": remote.remote_id},
            detail="Not imported: it may be that customer's, whose link was lost, or a copy of its metadata.",
        )
        questions_keep(state, [question])
        settle(work, state, status=Status.ORPHANED)
        return Look.SETTLED
    theirs = _held(work, remote.fields)
    parts = customer_changes(Customer(), theirs)
    try:
        customer = create_here(values=parts, origin=work.integration.name, priority=_priority(work))
    except CustomerBusy as exc:
        # Whether the e-mail is taken is known when the protected change that reserved it has ended.
        raise RetryableError(exc.detail, code=exc.code) from exc
    except EmailTaken:
        taken = Customer.objects.active().with_email(str(theirs["email"])).first()
        ours = {"customer_id": str(taken.pk)} if taken else None
        question = Question(
            Kind.EMAIL_TAKEN,
            "email",
            ours=ours,
            theirs={"remote_id": remote.remote_id, "email": theirs["email"]},
            detail="Not imported: it may be that customer, or another one with the same e-mail.",
        )
        questions_keep(state, [question])
        settle(work, state, status=Status.ORPHANED)
        return Look.SETTLED
    except (CustomerError, DataError, IntegrityError) as exc:
        questions_keep(state, [Question(Kind.REFUSED_HERE, theirs=theirs, detail=type(exc).__name__)])
        settle(work, state, status=Status.ORPHANED)
        return Look.SETTLED
    questions_keep(state, [])
    same = customer_fields(customer, work.integration.roots) == theirs
    settle(work, state, base=theirs, look_again=not same, values={"customer": customer})
    return Look.SETTLED


def _named(work: Work, remote: RemoteRecord) -> UUID | None:
    """The customer here that a record names, if that one has no record there; importing it would make a second one."""
    customer_id = uuid_of(remote.reference)
    if customer_id is None or not Customer.objects.active().filter(pk=customer_id).exists():
        return None
    linked = SyncState.objects.filter(integration=work.integration.name, customer=customer_id, remote_id__isnull=False)
    return None if linked.exists() else customer_id


def _create_there(work: Work, state: SyncState, customer: Customer) -> Look | Frozen:
    if state.conflicts.open().filter(kind__in=BLOCKING).exists():
        settle(work, state, status=Status.CONFLICT)
        return Look.SETTLED
    ours = customer_fields(customer, work.integration.roots)
    body = work.integration.create_body(reference=str(customer.pk), fields=ours)
    return Frozen(request_freeze(state, method=Method.CREATE, body=body, fields=ours), expected=ours)


def _delete_there(work: Work, state: SyncState, seen: _Seen) -> Look | Frozen:
    """Deleted here, which is final. What was never pushed needs no call at all."""
    policy = work.integration.delete_policy
    if seen.remote is None or seen.remote.deleted or policy == "unlink":
        questions_keep(state, [])
        settle(work, state, status=Status.DELETED)
        return Look.SETTLED
    if seen.obstacle:
        question = Question(Kind.DELETE_REFUSED, theirs={"remote_id": state.remote_id}, detail=seen.obstacle)
        questions_keep(state, [question])
        settle(work, state)
        return Look.SETTLED
    questions_keep(state, [])
    return Frozen(request_freeze(state, method=Method.DELETE, body={}, fields={}))


def _delete_here(work: Work, state: SyncState, customer: Customer) -> Look:
    if work.integration.remote_delete_policy == "conflict":
        questions_keep(state, [Question(Kind.REMOTE_DELETED, theirs={"remote_id": state.remote_id})])
        settle(work, state)
        return Look.SETTLED
    delete_here(customer_id=customer.pk, origin=work.integration.name, priority=_priority(work))
    questions_keep(state, [])
    settle(work, state, status=Status.DELETED)
    return Look.SETTLED


def _merge(work: Work, state: SyncState, customer: Customer, remote: RemoteRecord) -> Look | Frozen:
    integration = work.integration
    ours, theirs = customer_fields(customer, integration.roots), _held(work, remote.fields)
    plan = merge(base=state.base, ours=ours, theirs=theirs, owner=work.config.owner_of)
    questions = [Question(Kind.FIELD, item.field, item.base, item.ours, item.theirs) for item in plan.conflicts]
    pulled, refused = _pull(work, customer, plan)
    waiting = questions_keep(state, questions + refused)
    base = fields_advance(state.base, theirs, [*plan.agreed, *pulled])
    if plan.pushed:
        # The base learns of what is sent when it has arrived.
        body = integration.update_body(changes=plan.pushed)
        request = request_freeze(state, method=Method.UPDATE, body=body, fields=plan.pushed)
        SyncState.objects.filter(pk=state.pk).update(**base_columns(base))
        return Frozen(request, expected=fields_advance(theirs, plan.pushed, plan.pushed))
    settle(work, state, base=base, waiting=waiting)
    return Look.SETTLED


def _pull(work: Work, customer: Customer, plan: Merge) -> tuple[dict[str, Value | None], list[Question]]:
    """Change the customer through its own service; values that the catalogue refuses become questions."""
    wanted, refused = dict(plan.pulled), []
    while wanted:
        try:
            update_here(
                customer_id=customer.pk,
                changes=customer_changes(customer, wanted),
                origin=work.integration.name,
                priority=_priority(work),
            )
            break
        except CustomerBusy as exc:
            raise RetryableError(exc.detail, code=exc.code) from exc
        except EmailTaken:
            theirs = wanted.pop("email")
            refused.append(Question(Kind.EMAIL_TAKEN, "email", ours=customer.email, theirs=theirs))
        except (CustomerError, DataError, IntegrityError) as exc:
            # Which value it was is found by trying them root by root; nothing of this attempt was written.
            if len(roots := {root_of(name) for name in wanted}) > 1:
                parts = [{n: v for n, v in wanted.items() if root_of(n) == root} for root in sorted(roots)]
                return _pull_parts(work, customer, parts, refused)
            refused += [
                Question(Kind.REFUSED_HERE, name, theirs=value, detail=type(exc).__name__)
                for name, value in wanted.items()
            ]
            wanted = {}
    return wanted, refused


def _pull_parts(
    work: Work, customer: Customer, parts: list[dict[str, Value | None]], refused: list[Question]
) -> tuple[dict[str, Value | None], list[Question]]:
    pulled: dict[str, Value | None] = {}
    for part in parts:
        took, more = _pull(work, customer, Merge(pulled=part))
        pulled |= took
        refused += more
    return pulled, refused


def _held(work: Work, fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if root_of(name) in work.integration.roots}


def _priority(work: Work) -> EventPriority:
    return "bulk" if work.lease.priority == Priority.BULK else "interactive"
