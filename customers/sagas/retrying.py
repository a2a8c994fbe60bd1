"""Letting the workers go on with protected changes that are stuck or wait, because a person asked."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import IntegrityError
from django.db.models.functions import Now

from customers.locks import customer_lock
from customers.models import Customer, Saga
from customers.sagas.beginning import states_take
from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.locks.errors import LockTaken
from operations.locks.rows import locks_take
from outbox.wakeup import wake


def sagas_retry(*, ids: Sequence[UUID], actor: str, reason: str = "") -> list[UUID]:
    """Have stuck ones go on where they stopped and waiting ones at once, each on its own, and write down who asked.

    Args:
        actor: as ``actor_of`` names them.
        reason: why, for the audit trail alone.

    Returns:
        Those that will; not those that have ended or that a worker is at, nor stuck ones whose customer another one is
        changing now.
    """
    found = [saga_id for saga_id in ids if _retried(saga_id, actor, reason)]
    if found:
        wake("sync")
    return found


def _retried(saga_id: UUID, actor: str, reason: str) -> bool:
    def work() -> bool:
        # The saga before the customer, as everybody does.
        saga = Saga.objects.stuck().select_for_update(no_key=True).filter(pk=saga_id).first()
        if saga is None:
            return _hurried(saga_id, actor, reason)
        if saga.action == Saga.Action.UPDATE:
            # It let go of the customer when it stuck.
            customer = Customer.objects.select_for_update(no_key=True).get(pk=saga.customer_id)
            locks_take([customer_lock(customer.pk)], holder=saga.holder)
            states_take(saga, customer)
        status = Saga.Status.UNDOING if saga.turned_back else Saga.Status.RUNNING
        Saga.objects.filter(pk=saga.pk).update(
            status=status, attempts=0, strikes=0, next_attempt_at=Now(), updated_at=Now()
        )
        _audit(saga.pk, "saga.retried", actor, reason)
        return True

    try:
        return run_in_transaction(work)
    except (LockTaken, IntegrityError):
        return False


def _hurried(saga_id: UUID, actor: str, reason: str) -> bool:
    """Let the next attempt of one that waits for it be due now; whoever holds it is left alone."""
    done = Saga.objects.waiting().filter(pk=saga_id).update(next_attempt_at=Now(), updated_at=Now())
    if done:
        _audit(saga_id, "saga.hurried", actor, reason)
    return bool(done)


def _audit(saga_id: UUID, action: str, actor: str, reason: str) -> None:
    detail = {"reason": reason} if reason else {}
    audit_record(actor=actor, action=action, target=f"saga:{saga_id}", detail=detail)
