"""How a protected change begins: one transaction that writes it down, takes its locks and its sync states, or nothing.

When it commits, nobody else can change the customer, take the e-mail or synchronise the customer until it ends, and
whoever dies from now on is followed by another worker. Nothing was sent yet.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from uuid_utils.compat import uuid7

from customers.changing import Versions, customer_locked
from customers.errors import CustomerBusy, EmailTaken
from customers.events import Priority
from customers.integrations import integrations
from customers.locks import customer_lock, email_lock
from customers.models import Customer, Saga, SagaStep, SyncState
from customers.sagas.conf import saga_settings
from customers.sagas.lease import SagaLease
from customers.sync.conf import sync_settings
from customers.sync.lease import lease_owner
from dbresilience.errors import NestedTransaction
from dbresilience.transactions import run_in_transaction
from operations.correlation import correlation_id
from operations.idempotency.keys import HeldKey
from operations.locks.errors import LockTaken
from operations.locks.rows import lock_contended, locks_take
from operations.tracing import traceparent

Action = Saga.Action
Kind = SagaStep.Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a protected change is to do.

    Attributes:
        action: create, update or delete.
        customer_id: whose; None for a create.
        values: fields and their values, valid.
        if_version: as in ``customers.changing``.
        origin, priority: of the event.
        actor: who asks.
        address: where customers are found, as whoever asks knows it.
        held: idempotency key that is held for it.
    """

    action: Saga.Action
    customer_id: UUID | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    if_version: Versions = None
    origin: str = "api"
    priority: Priority = "interactive"
    actor: str = "system"
    address: str = "/api/v1/customers"
    held: HeldKey | None = None


def saga_begin(wanted: Wanted) -> SagaLease:
    """Begin, and hold the lease.

    Raises:
        NestedTransaction: inside another transaction, whose end could not be told.
        CustomerNotFound, CustomerDeleted, VersionMismatch, EmailTaken: nothing was begun.
        CustomerBusy: another protected change of it, or for its e-mail, is under way.
        KeyInFlight: another request took the idempotency key over.
    """
    if connection.in_atomic_block:
        raise NestedTransaction("A protected change calls integrations, so it cannot be part of a transaction.")
    try:
        return run_in_transaction(lambda: _write(wanted))
    except LockTaken as exc:
        lock_contended(exc)
        raise CustomerBusy from exc
    except IntegrityError as exc:
        # Only the constraint of one open saga a customer can be violated here, by one whose locks were taken away.
        raise CustomerBusy from exc


def _write(wanted: Wanted) -> SagaLease:
    if wanted.held is not None:
        wanted.held.lock()
    customer = None
    if wanted.customer_id is not None:
        customer = customer_locked(wanted.customer_id, wanted.if_version)
    saga = _saga(wanted, customer)
    names, email = [customer_lock(saga.customer_id)], wanted.values.get("email")
    if email:
        names.append(email_lock(email))
    # Taken before the e-mail is looked for: from now on nobody new can have it, but whoever was before us may.
    locks_take(names, holder=saga.holder)
    if email and Customer.objects.active().with_email(email).exclude(pk=saga.customer_id).exists():
        raise EmailTaken
    before = time.monotonic()
    saga.save(force_insert=True)
    lease = timedelta(seconds=sync_settings().lease)
    # By the server's clock, which is asked about them later.
    Saga.objects.filter(pk=saga.pk).update(
        lease_until=Now() + lease,
        next_attempt_at=Now() + lease,
        give_up_at=Now() + timedelta(seconds=saga_settings().give_up),
    )
    SagaStep.objects.bulk_create(_steps(saga))
    states_take(saga, customer)
    return SagaLease(
        saga_id=saga.pk,
        token=saga.lease_token,
        ends=before + lease.total_seconds(),
        correlation_id=saga.correlation_id,
        traceparent=saga.traceparent,
    )


def _saga(wanted: Wanted, customer: Customer | None) -> Saga:
    now, values = timezone.now(), dict(wanted.values)
    return Saga(
        action=wanted.action,
        customer_id=customer.pk if customer is not None else uuid7(),
        values=values,
        fields=sorted(name for name, value in values.items() if value or wanted.action == Action.UPDATE),
        origin=wanted.origin,
        priority=wanted.priority,
        actor=wanted.actor[:200],
        address=wanted.address[:500],
        idempotency_id=wanted.held.id if wanted.held is not None else None,
        give_up_at=now,
        lease_owner=lease_owner(),
        lease_token=1,
        correlation_id=correlation_id(),
        traceparent=traceparent(),
        created_at=now,
        updated_at=now,
    )


def _steps(saga: Saga) -> Sequence[SagaStep]:
    """The plan. With several integrations, each is asked before the first deletion, which cannot be undone."""
    names = sorted(integrations())
    plan: list[tuple[SagaStep.Kind, str]] = [(Kind.RESERVE, "")]
    if saga.action == Action.DELETE and len(names) > 1:
        plan += [(Kind.CHECK, name) for name in names]
    plan += [(Kind.REMOTE, name) for name in names]
    plan.append((Kind.LOCAL, ""))
    now = timezone.now()
    steps = [SagaStep(saga=saga, number=at, kind=kind, integration=name) for at, (kind, name) in enumerate(plan, 1)]
    steps[0].status, steps[0].attempts = SagaStep.Status.DONE, 1
    steps[0].started_at = steps[0].finished_at = now
    return steps


def states_take(saga: Saga, customer: Customer | None) -> None:
    """Take the sync states from whoever works on them.

    A worker that looks at one now finds its token gone and changes nothing more. What it may have in flight is written
    down, and is finished by its key before anything of ours is sent.
    """
    known = list(integrations().values())
    if customer is None:
        SyncState.objects.bulk_create(
            SyncState(integration=one.name, account=one.account, livemode=one.livemode, saga=saga) for one in known
        )
        return
    rows = [
        SyncState(integration=one.name, account=one.account, livemode=one.livemode, customer=customer) for one in known
    ]
    # Of two who insert the row of a customer that nobody has looked at yet, one does.
    SyncState.objects.bulk_create(rows, ignore_conflicts=True)
    names = [one.name for one in known]
    taken = SyncState.objects.select_for_update(no_key=True).filter(customer=customer, integration__in=names)
    SyncState.objects.filter(pk__in=[state.pk for state in taken.order_by("id")]).update(
        saga=saga, lease_token=F("lease_token") + 1, lease_until=None, lease_owner=""
    )
