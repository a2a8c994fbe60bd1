"""How a saga ends: one transaction in which everything becomes visible, or in which nothing is left of it.

In it the locks and sync states are given back and the idempotency key is completed. So whoever sees the customer sees
a saga that is done, and a repeated request finds the answer as soon as there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.db import DataError, IntegrityError
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from customers.changing import create_here, delete_here, update_here
from customers.errors import CustomerError
from customers.models import Customer, Drift, Saga, SagaStep, SyncState
from customers.sagas.answers import customer_answer, undone_answer, undone_document
from customers.sagas.forgetting import create_forget
from customers.sagas.lease import saga_locked
from customers.sagas.run import Run, SagaRefused
from dbresilience.transactions import run_in_transaction
from operations.idempotency.keys import Answer, answer_complete
from operations.locks.rows import locks_release
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

Status = SagaStep.Status


@dataclass(frozen=True, slots=True)
class Ended:
    """A saga that has ended, and how it is answered."""

    saga: Saga
    answer: Answer


def saga_finish(run: Run, step: SagaStep) -> Ended:
    """Make the change here, with its event and the sync states, and end the saga.

    Raises:
        SagaRefused: it cannot be made; nothing was written.
        SagaLeaseLost: another worker has the saga.
    """
    try:
        ended = run_in_transaction(lambda: _finish(run, step))
    except CustomerError as exc:
        raise SagaRefused(exc, step=step, code=exc.code, message=exc.detail) from exc
    except (DataError, IntegrityError) as exc:
        # Valid values that the table refuses: a validator is missing, and the log has the trace.
        log.exception("saga_refused_here", saga=str(step.saga_id))
        raise SagaRefused(_Refused(), step=step, code="invalid_value", message=type(exc).__name__) from exc
    wake("sync")
    return ended


def saga_undone(run: Run) -> Ended:
    """End one of which everything was undone.

    Raises:
        SagaLeaseLost: another worker has the saga.
    """
    ended = run_in_transaction(lambda: _undone(run))
    wake("sync")
    return ended


def states_free(saga: Saga) -> None:
    """Let the ordinary synchronisation have the rows, and look at them."""
    states = SyncState.objects.filter(saga=saga)
    found = list(states.values_list("pk", flat=True))
    states.update(**_FREE)
    SyncState.objects.filter(pk__in=found).look_again()


class _Refused(CustomerError):
    """A value cannot be stored."""

    status = 400
    code = "invalid_value"
    title = "Not valid"


def _finish(run: Run, step: SagaStep) -> Ended:
    saga = saga_locked(run.lease)
    # The customer before its locks, as whoever begins another change: else each could hold what the other waits for.
    Customer.objects.select_for_update(no_key=True).filter(pk=saga.customer_id).first()
    # Given back now, so that the change is free to be made; others see the locks until all of this is committed.
    locks_release(holder=saga.holder)
    customer = _changed(saga)
    _states_settle(saga, customer)
    SagaStep.objects.filter(pk=step.pk).update(status=Status.DONE, finished_at=Now())
    _end(saga, Saga.Status.DONE)
    answer = customer_answer(saga, customer)
    _complete(saga, answer)
    return Ended(saga, answer)


def _changed(saga: Saga) -> Customer:
    origin, priority, values = saga.origin, saga.priority, saga.values
    event: dict[str, Any] = {"origin": origin, "priority": priority}
    if saga.action == Saga.Action.CREATE:
        return create_here(customer_id=saga.customer_id, values=values, **event)
    if saga.action == Saga.Action.UPDATE:
        return update_here(customer_id=saga.customer_id, changes=values, **event)
    return delete_here(customer_id=saga.customer_id, **event)


def _states_settle(saga: Saga, customer: Customer) -> None:
    """Give the rows back. What the integrations have of them was written down when they answered."""
    pks = list(SyncState.objects.filter(saga=saga).values_list("pk", flat=True))
    states = SyncState.objects.filter(pk__in=pks)
    states.update(**_FREE, customer=customer, last_success_at=Now())
    if saga.action == Saga.Action.DELETE:
        states.update(status=SyncState.Status.DELETED, **_NO_ERROR)
        for state in states:
            Drift.objects.end_settled(state, SyncState.Status.DELETED)
        return
    # Of a customer that had other trouble before, the next look says whether it is over.
    calm = Q(status=SyncState.Status.IN_SYNC) | Q(status=SyncState.Status.PENDING, dirty_at__isnull=True)
    if saga.action == Saga.Action.CREATE:
        calm = Q()
    states.filter(calm).update(status=SyncState.Status.IN_SYNC, **_NO_ERROR)


def _undone(run: Run) -> Ended:
    saga = saga_locked(run.lease)
    locks_release(holder=saga.holder)
    undone = [Status.DONE, Status.RUNNING, Status.UNDOING]
    saga.steps.filter(kind=SagaStep.Kind.RESERVE, status__in=undone).update(status=Status.UNDONE, finished_at=Now())
    saga.steps.filter(status__in=[Status.WAITING, Status.RUNNING]).update(status=Status.SKIPPED, finished_at=Now())
    if saga.action == Saga.Action.CREATE:
        create_forget(saga)
    else:
        states_free(saga)
    _end(saga, Saga.Status.UNDONE)
    # Of a create, what it says of a person is out of it by now.
    document = undone_document(saga, list(saga.steps.order_by("number")))
    Saga.objects.filter(pk=saga.pk).update(failure=document)
    saga.failure = document
    answer = undone_answer(saga, document)
    _complete(saga, answer)
    return Ended(saga, answer)


def _end(saga: Saga, status: Saga.Status) -> None:
    """Its row says that it is over, and keeps nobody's data."""
    saga.status, saga.values, saga.finished_at = status, {}, timezone.now()
    columns: dict[str, Any] = {"status": status, "values": {}, "finished_at": Now(), "updated_at": Now()}
    Saga.objects.filter(pk=saga.pk).update(**columns, lease_until=None, lease_owner="", **_NO_ERROR)
    saga.steps.filter(before__isnull=False).update(before=None)


def _complete(saga: Saga, answer: Answer) -> None:
    if saga.idempotency_id is not None:
        answer_complete(key_id=saga.idempotency_id, answer=answer)


_FREE: Final[dict[str, Any]] = {"saga": None, "lease_until": None, "lease_owner": "", "next_attempt_at": Now()}
_NO_ERROR: Final[dict[str, Any]] = {"last_error_class": "", "last_error_code": "", "last_error_message": ""}
