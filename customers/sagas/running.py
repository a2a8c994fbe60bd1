"""The holder's work on a saga: step by step forwards or back, each written down before the next.

Whatever step a worker dies at, the next one finds the steps as they were and begins the one that was under way again,
which sends only what is still to be sent. What is not known (no answer came) is found out before anything is decided;
so nothing is undone that may not have happened, and nothing left that may have.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import structlog
from django.db import InterfaceError, OperationalError
from django.db.models import F, Func
from django.db.models.functions import Now

from customers.integrations import (
    ConfigurationError,
    IntegrationError,
    PermanentError,
    RateLimited,
    Unreachable,
)
from customers.models import Saga, SagaStep
from customers.sagas.answers import failure_document
from customers.sagas.conf import saga_settings
from customers.sagas.ending import Ended, saga_finish, saga_undone, states_free
from customers.sagas.errors import IntegrationRefused, IntegrationSilent, SagaLeaseLost, SagaWaits
from customers.sagas.lease import SagaLease, saga_locked
from customers.sagas.remote import remote_bring, remote_check
from customers.sagas.run import Run, SagaRefused
from customers.sync.conf import sync_settings
from customers.sync.work import no_step
from dbresilience.transactions import run_in_transaction
from operations.correlation import work_bound
from operations.locks.rows import locks_release

log = structlog.get_logger(__name__)

Status = SagaStep.Status
Kind = SagaStep.Kind
_SOON: Final = 0.25


def saga_run(lease: SagaLease, *, until: float | None = None, on_step: Callable[[str], None] = no_step) -> Ended | None:
    """Bring a saga that was taken as far as it goes, and give it back.

    Args:
        until: monotonic moment up to which what does not go through at once is tried again here; None: no longer.
        on_step: called at each boundary between a commit and a call, where a process may die.

    Returns:
        How it ended; None if it has not, or if another worker has it.
    """
    with work_bound("saga", correlation=lease.correlation_id, traceparent=lease.traceparent) as work:
        run = Run(lease, on_step)
        try:
            ended = _advance(run, until)
        except SagaLeaseLost:
            log.info("saga_lease_lost", saga=str(lease.saga_id), token=lease.token)
            return None
        outcome = ended.saga.status if ended else "waits"
        work.tell(attributes={"zenskar.outcome": outcome})
        log.info("saga_ended" if ended else "saga_waits", saga=str(lease.saga_id), outcome=outcome)
        return ended


def _advance(run: Run, until: float | None) -> Ended | None:
    tried = 0
    while True:
        try:
            return _walk(run)
        except SagaWaits as exc:
            tried += 1
            soon = exc.wait or random.uniform(0, min(_SOON * 2**tried, 5.0))  # noqa: S311
            here = until is not None and time.monotonic() + soon < until
            if not _waits(run, exc, give_back=not here):
                # What was wanted of it has changed: it turned back, or a person must look.
                continue
            if not here:
                return None
            time.sleep(soon)


def _walk(run: Run) -> Ended | None:
    saga = Saga.objects.open().filter(pk=run.lease.saga_id, lease_token=run.lease.token).first()
    if saga is None:
        raise SagaLeaseLost
    run.lease.renew(sync_settings().lease)
    run.on_step("begun")
    if saga.status == Saga.Status.RUNNING:
        try:
            return _forward(run)
        except SagaRefused as exc:
            _turn_back(run, exc)
            run.on_step("turned back")
    return _back(run)


def _forward(run: Run) -> Ended:
    for step in _steps(run):
        if step.status == Status.DONE:
            continue
        _started(run, step)
        run.on_step(f"{step} started")
        with _Translated(step, forward=True):
            if step.kind == Kind.LOCAL:
                ended = saga_finish(run, step)
                run.on_step("finished")
                return ended
            (remote_check if step.kind == Kind.CHECK else remote_bring)(run, step)
        _mark(run, step, Status.DONE)
        run.on_step(f"{step} done")
    raise SagaWaits(error_class="internal", code="no_last_step", message="The plan has no last step.", is_strike=True)


def _back(run: Run) -> Ended:
    for step in reversed(_steps(run)):
        # One that was refused is looked at too: its time may have run out while nobody knew whether it had happened.
        if step.kind != Kind.REMOTE or step.status in (Status.WAITING, Status.UNDONE, Status.SKIPPED):
            continue
        if step.status == Status.REFUSED and step.undo_attempts:
            continue
        _undoing(run, step)
        run.on_step(f"{step} undoing")
        with _Translated(step, forward=False):
            remote_bring(run, step)
        _mark_undone(run, step)
        run.on_step(f"{step} undone")
    ended = saga_undone(run)
    run.on_step("undone")
    return ended


class _Translated:
    """Turns what an integration said into what it means for the saga."""

    def __init__(self, step: SagaStep, *, forward: bool) -> None:
        self._step, self._forward = step, forward

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, *rest: object) -> None:
        match exc:
            case SagaRefused() | SagaWaits() | SagaLeaseLost() | OperationalError() | InterfaceError():
                return
            case IntegrationError():
                self._integration(exc)
            case Exception():
                # A defect of ours: the row shows it and is tried again by the ladder, the log keeps the trace.
                log.exception("saga_broken", saga=str(self._step.saga_id), step=str(self._step))
                message = f"Internal error: {type(exc).__name__}"
                raise SagaWaits(error_class="retryable", code="internal", message=message, is_strike=True) from exc

    def _integration(self, exc: IntegrationError) -> None:
        step = self._step
        final = isinstance(exc, PermanentError | ConfigurationError)
        if final and self._forward and step.saga.may_turn_back:
            problem = IntegrationRefused(f"{step.integration} refused the change: {exc.message}")
            raise SagaRefused(problem, step=step, code=exc.code, message=exc.message) from exc
        raise SagaWaits(
            error_class=exc.error_class,
            code=exc.code,
            message=exc.message,
            wait=exc.retry_after if isinstance(exc, RateLimited) else 0.0,
            # An outage and a limit say nothing about the saga.
            is_strike=not isinstance(exc, Unreachable | RateLimited),
        ) from exc


def _steps(run: Run) -> list[SagaStep]:
    steps = SagaStep.objects.filter(saga=run.lease.saga_id).select_related("saga", "request").order_by("number")
    return list(steps)


def _started(run: Run, step: SagaStep) -> None:
    _write(run, step, status=Status.RUNNING, attempts=F("attempts") + 1, started_at=Now(), finished_at=None)


def _undoing(run: Run, step: SagaStep) -> None:
    _write(run, step, status=Status.UNDOING, undo_attempts=F("undo_attempts") + 1, finished_at=None)


def _mark(run: Run, step: SagaStep, status: SagaStep.Status) -> None:
    _write(run, step, went_on=True, status=status, finished_at=Now())


def _mark_undone(run: Run, step: SagaStep) -> None:
    """What had no effect was not undone: it was refused, or nothing had to be sent."""
    now = SagaStep.objects.select_related("request").get(pk=step.pk)
    if now.took_effect or now.undo_request_id is not None:
        status = Status.UNDONE
    else:
        status = Status.REFUSED if now.error_message else Status.SKIPPED
    _mark(run, step, status)


def _write(run: Run, step: SagaStep, *, went_on: bool = False, **columns: Any) -> None:
    def write() -> None:
        saga_locked(run.lease)
        SagaStep.objects.filter(pk=step.pk).update(**columns)
        if went_on:
            Saga.objects.filter(pk=step.saga_id).update(attempts=0, strikes=0, updated_at=Now())

    run_in_transaction(write)


def _turn_back(run: Run, refused: SagaRefused) -> None:
    """From now on everything that was done of it is undone; why is written down."""

    def write() -> None:
        saga = saga_locked(run.lease)
        document = failure_document(saga, refused)
        if refused.step is not None:
            SagaStep.objects.filter(pk=refused.step.pk).update(
                status=Status.REFUSED,
                finished_at=Now(),
                error_code=refused.code[:64],
                error_message=refused.message[:2000],
            )
        Saga.objects.filter(pk=saga.pk).update(
            status=Saga.Status.UNDOING, failure=document, attempts=0, strikes=0, updated_at=Now()
        )

    run_in_transaction(write)
    log.info("saga_turned_back", saga=str(run.lease.saga_id), code=refused.code)


def _waits(run: Run, why: SagaWaits, *, give_back: bool) -> bool:
    """Write down why it does not go on, and give it back until its next attempt.

    Returns:
        False when it has turned back or is a person's now, so that the holder looks at it again.
    """
    config, ladder = saga_settings(), sync_settings()

    def write() -> bool:
        saga = saga_locked(run.lease)
        strikes = saga.strikes + (1 if why.is_strike else 0)
        columns: dict[str, Any] = {
            "attempts": saga.attempts + 1,
            "strikes": strikes,
            "last_error_class": why.error_class,
            "last_error_code": why.code[:64],
            "last_error_message": why.message[:2000],
            "updated_at": Now(),
        }
        is_late = Saga.objects.filter(pk=saga.pk, give_up_at__lt=Func(function="clock_timestamp")).exists()
        is_struck = strikes >= config.strikes
        if saga.status == Saga.Status.RUNNING and saga.may_turn_back and (is_late or is_struck):
            Saga.objects.filter(pk=saga.pk).update(**columns)
            _turn_back(run, _given_up(saga, why))
            return False
        if is_struck:
            _stick(saga, columns)
            return False
        if give_back:
            longest = min(ladder.retry_max_delay, ladder.retry_base_delay * 2 ** min(saga.attempts + 1, 30))
            wait = max(why.wait, random.uniform(0, longest))  # noqa: S311
            columns |= {"lease_until": None, "lease_owner": "", "next_attempt_at": Now() + timedelta(seconds=wait)}
        Saga.objects.filter(pk=saga.pk).update(**columns)
        return True

    return run_in_transaction(write)


def _given_up(saga: Saga, why: SagaWaits) -> SagaRefused:
    step = saga.steps.filter(status=Status.RUNNING).order_by("number").first()
    name = step.integration if step is not None and step.integration else "An integration"
    problem = IntegrationSilent(f"{name} did not answer in time, so the change was given up: {why.message}")
    return SagaRefused(problem, step=step, code=why.code, message=why.message)


def _stick(saga: Saga, columns: dict[str, Any]) -> None:
    """It is a person's now. Others may go on with the customer, unless it is half deleted.

    The record of a create that cannot be undone stays the saga's: nobody takes it for a new customer. What an update
    left there is the ordinary synchronisation's now, which compares it with what is here.
    """
    stuck: dict[str, Any] = {"status": Saga.Status.STUCK, "lease_until": None, "lease_owner": ""}
    Saga.objects.filter(pk=saga.pk).update(**columns, **stuck)
    if saga.action != Saga.Action.DELETE:
        locks_release(holder=saga.holder)
    if saga.action == Saga.Action.UPDATE:
        states_free(saga)
    log.error("saga_stuck", saga=str(saga.pk), action=saga.action, code=columns["last_error_code"])
