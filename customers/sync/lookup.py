"""Finding out what became of a request without its key: fetched, or searched for among the other side's records.

When the look-up itself fails, nothing is concluded and the row is retried: never is a second record created because
the first one could not be looked for.
"""

from __future__ import annotations

import time
from typing import Final

from customers.integrations import IntegrationError, RemoteRecord
from customers.models import Conflict, SyncRequest, SyncState
from customers.sync.closing import record_link, request_close, request_resolve, written
from customers.sync.fields import fields_advance
from customers.sync.lease import lease_locked
from customers.sync.ratelimit import NoToken
from customers.sync.settle import Question, base_columns, question_add
from customers.sync.work import Work
from dbresilience.transactions import run_in_transaction

Method = SyncRequest.Method
Outcome = SyncRequest.Outcome
# Seconds of one attempt of a look-up.
_BUDGET: Final = 20.0


def look_up(work: Work, request: SyncRequest, *, why: str) -> None:
    """Find out whether a request had its effect, without its key."""
    if request.method == Method.CREATE:
        _look_up_created(work, request, why)
    elif request.method == Method.UPDATE:
        record = work.call(lambda: work.integration.retrieve(remote_id=request.state.remote_id or ""))
        there = record.fields if record is not None and not record.deleted else {}
        # A field that has the value we sent was changed by us: the base takes it over, or a later edit here would
        # look like a collision with our own push.
        took = [field for field, value in request.fields.items() if there.get(field) == value and record is not None]
        request_resolve(work, request, Outcome.ADOPTED if took else Outcome.ABANDONED, note=why, took=took)
    else:
        # Whether it is gone is what the next fetch shows.
        request_resolve(work, request, Outcome.ABANDONED, note=why)


def _look_up_created(work: Work, request: SyncRequest, why: str) -> None:
    state, reference = request.state, request.state.reference
    email = request.fields.get("email") or ""
    found = _found(work, request, reference, str(email))
    linked = set(
        SyncState.objects.filter(
            integration=state.integration,
            account=state.account,
            livemode=state.livemode,
            remote_id__in=[record.remote_id for record in found],
            customer__isnull=False,
        ).values_list("remote_id", flat=True)
    )
    free = [record for record in found if record.remote_id not in linked]
    ours = [record for record in free if record.reference == reference]
    work.step("found")

    def write() -> None:
        row = lease_locked(work.lease)
        if len(ours) == 1:
            request_close(request, Outcome.ADOPTED, note=why)
            record_link(work, row, ours[0].remote_id)
            row.base = fields_advance(row.base, request.fields, request.fields)
            SyncState.objects.filter(pk=row.pk).update(**base_columns(row.base), remote_id=row.remote_id)
            return
        request_close(request, Outcome.ABANDONED, note=why)
        if ours:
            theirs = [record.remote_id for record in ours]
            question_add(row, Question(Conflict.Kind.SEVERAL, theirs=theirs))
            return
        candidates = [record.remote_id for record in free if record.fields.get("email") == email]
        if email and candidates:
            # Never linked on an e-mail alone: a proposal, which holds nothing up.
            question_add(row, Question(Conflict.Kind.SAME_EMAIL, "email", ours=email, theirs=candidates))

    written(write)
    work.step("resolved")


def _found(work: Work, request: SyncRequest, reference: str, email: str) -> list[RemoteRecord]:
    """What the look-up of a create finds, call by call; in an account that is being filled it may take many.

    How far it came is written down when it ends early, so that the next attempt goes on from there, and other rows
    have their turn in between.
    """
    ends, resume = time.monotonic() + _BUDGET, request.resume
    found: dict[str, RemoteRecord] = {}
    steps = work.integration.find(
        reference=reference, email=email, sent=(request.first_sent_at, request.last_sent_at), resume=resume
    )
    try:
        while (step := work.call(lambda: next(steps, None))) is not None:
            found |= {record.remote_id: record for record in step.records}
            resume = step.resume
            if resume != request.resume and time.monotonic() > ends:
                raise NoToken("The look-up goes on.", code="looking", retry_after=0.0)
    except IntegrationError:
        if resume != request.resume:
            _remember(work, request, resume)
        raise
    return list(found.values())


def _remember(work: Work, request: SyncRequest, resume: str) -> None:
    def write() -> None:
        lease_locked(work.lease)
        SyncRequest.objects.in_flight().filter(pk=request.pk).update(resume=resume)

    run_in_transaction(write)
