"""How a request ends: its row is closed, the remote record becomes the customer's; under the lease's token."""

from __future__ import annotations

from collections.abc import Callable

from django.db import IntegrityError
from django.db.models.functions import Now

from customers.integrations import IntegrationError
from customers.models import Conflict, SyncRequest, SyncState
from customers.sync.fields import fields_advance
from customers.sync.lease import lease_locked
from customers.sync.settle import Question, base_columns, question_add
from customers.sync.work import Work
from dbresilience.transactions import run_in_transaction

Outcome = SyncRequest.Outcome


def record_link(work: Work, state: SyncState, remote_id: str) -> None:
    """Make the remote record this customer's.

    A webhook of our own create may have come before its answer and left an unlinked row for the same record: that row
    goes, and whoever holds its lease finds its token gone. If the record was imported as another customer in that
    time, a person decides; no second one is created meanwhile.
    """
    if state.remote_id == remote_id:
        return
    other = (
        SyncState.objects.select_for_update(no_key=True)
        .filter(integration=state.integration, account=state.account, livemode=state.livemode, remote_id=remote_id)
        .exclude(pk=state.pk)
        .first()
    )
    if other is not None and other.customer_id is not None:
        theirs = {"remote_id": remote_id, "customer_id": str(other.customer_id)}
        question_add(state, Question(Conflict.Kind.LINKED_ELSEWHERE, theirs=theirs))
        return
    if other is not None:
        other.delete()
    state.remote_id = remote_id


def request_resolve(
    work: Work,
    request: SyncRequest,
    outcome: Outcome,
    *,
    error: IntegrationError | None = None,
    note: str = "",
    took: list[str] | None = None,
) -> None:
    """Close a request that changed nothing there, or of whose fields just ``took`` arrived.

    Raises:
        LeaseLost: another worker took the row.
    """

    def write() -> None:
        state = lease_locked(work.lease)
        request_close(request, outcome, error=error, note=note)
        if took:
            base = fields_advance(state.base, request.fields, took)
            SyncState.objects.filter(pk=state.pk).update(**base_columns(base))

    run_in_transaction(write)
    work.step("resolved")


def request_close(
    request: SyncRequest, outcome: Outcome, *, error: IntegrationError | None = None, note: str = ""
) -> None:
    SyncRequest.objects.in_flight().filter(pk=request.pk).update(
        outcome=outcome,
        resolved_at=Now(),
        error_code=error.code[:64] if error else "",
        error_message=(error.message if error else note)[:2000],
    )


def written(write: Callable[[], None]) -> None:
    """Run the transaction; once more when a webhook inserted an unlinked row for the record just before our link."""
    try:
        run_in_transaction(write)
    except IntegrityError:
        run_in_transaction(write)
