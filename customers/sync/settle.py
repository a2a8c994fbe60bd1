"""How a look at a sync state ends: what is written about it, always under the lease's token.

The caller holds the row's lock, taken by ``lease_locked``. A poke takes the same lock, so it either came before, and
``poke_count`` shows it, or waits and marks the settled row dirty anew: none is ever lost between the two.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Func, Value
from django.db.models.functions import Coalesce, Now

from customers.integrations import (
    ConfigurationError,
    Fields,
    IntegrationError,
    PermanentError,
    PermissionMissing,
    RateLimited,
)
from customers.models import Conflict, Drift, SyncState
from customers.sync.fields import fields_hash
from customers.sync.lease import lease_locked
from customers.sync.work import Work
from dbresilience.transactions import run_in_transaction

# Proposals and facts that a look at the fields cannot take back; a person closes them.
_KEPT = (Conflict.Kind.SAME_EMAIL, Conflict.Kind.SEVERAL, Conflict.Kind.LINKED_ELSEWHERE)
# With one of these open, nobody knows which remote record is this customer's: none is created.
BLOCKING = (Conflict.Kind.SEVERAL, Conflict.Kind.LINKED_ELSEWHERE)


@dataclass(frozen=True, slots=True)
class Question:
    """Something that a person must decide; becomes a ``Conflict`` row."""

    kind: Conflict.Kind
    field: str = ""
    base: Any = None
    ours: Any = None
    theirs: Any = None
    detail: str = ""


def questions_keep(state: SyncState, questions: list[Question]) -> bool:
    """Make the open conflicts of the row these: new ones open, known ones are updated, the others have converged.

    Returns:
        Whether any conflict holds the row up now; a mere proposal does not.
    """
    known = {(row.kind, row.field): row for row in state.conflicts.open()}
    asked = {(question.kind, question.field) for question in questions}
    for question in questions:
        row = known.get((question.kind, question.field))
        if row is None:
            Conflict.objects.create(
                state=state,
                kind=question.kind,
                field=question.field,
                base=question.base,
                ours=question.ours,
                theirs=question.theirs,
                detail=question.detail,
            )
        elif (row.base, row.ours, row.theirs) != (question.base, question.ours, question.theirs):
            row.base, row.ours, row.theirs, row.detail = (
                question.base,
                question.ours,
                question.theirs,
                question.detail,
            )
            row.save(update_fields=["base", "ours", "theirs", "detail"])
    over = [row.pk for key, row in known.items() if key not in asked and row.kind not in _KEPT]
    if over:
        Conflict.objects.filter(pk__in=over).update(
            status=Conflict.Status.RESOLVED, resolution="converged", resolved_at=Now()
        )
    return bool(questions) or any(kind in BLOCKING for kind, _ in known)


def question_add(state: SyncState, question: Question) -> None:
    """Open one conflict beside the others, unless it is open already."""
    Conflict.objects.get_or_create(
        state=state,
        kind=question.kind,
        field=question.field,
        status=Conflict.Status.OPEN,
        defaults={
            "base": question.base,
            "ours": question.ours,
            "theirs": question.theirs,
            "detail": question.detail,
        },
    )


def settle(
    work: Work,
    state: SyncState,
    *,
    status: SyncState.Status | None = None,
    base: Fields | None = None,
    waiting: bool | None = None,
    look_again: bool = False,
    values: Mapping[str, Any] | None = None,
) -> None:
    """End a look that went through: give the row back, clean unless it was poked meanwhile.

    Args:
        state: the row, locked.
        status: what it is now; None: a conflict if one is open, else in sync.
        base: the new base; None keeps the old one.
        waiting: whether a conflict holds it up, where the caller knows; None: it is asked.
        look_again: something was seen that needs another look.
        values: other columns to write.
    """
    if status is None:
        if waiting is None:
            waiting = state.conflicts.open().exclude(kind=Conflict.Kind.SAME_EMAIL).exists()
        status = SyncState.Status.CONFLICT if waiting else SyncState.Status.IN_SYNC
    clean = state.poke_count == work.lease.poke_count and not look_again
    columns: dict[str, Any] = {
        "status": status,
        "attempts": 0,
        "last_error_class": "",
        "last_error_code": "",
        "last_error_message": "",
        "failing_since": None,
        "last_success_at": Now(),
        **base_columns(base),
        **(values or {}),
    }
    if clean:
        columns["dirty_at"] = None
    elif state.dirty_at is None:
        columns["dirty_at"] = Now()
    _give_back(state, columns)
    if not look_again:
        # Under the lock of the row: who found a difference before it moved asks for it too, and then writes nothing.
        Drift.objects.end_settled(state, status)


def settle_put_off(work: Work, seconds: float) -> None:
    """End a look that could not begin or go on for want of a token: the row is due again after ``seconds``."""

    def write() -> None:
        state = lease_locked(work.lease)
        _give_back(state, {**_still_dirty(state), "next_attempt_at": _in(seconds)})

    run_in_transaction(write)


def settle_failure(work: Work, error: IntegrationError) -> None:
    """End a look that failed, by the class of the error.

    Permanent: the row has failed and is left alone until somebody pokes it. Configuration and rate limit: it waits,
    without an attempt used. Else: the next step of the ladder, with full jitter (after "Exponential Backoff And
    Jitter", AWS Architecture Blog) and without an end: an outage may last longer than any number of attempts.
    """
    config = work.config

    def write() -> None:
        state = lease_locked(work.lease)
        columns: dict[str, Any] = {
            "last_error_class": error.error_class,
            "last_error_code": error.code[:64],
            "last_error_message": error.message[:2000],
        }
        if not isinstance(error, RateLimited | ConfigurationError):
            columns["failing_since"] = Coalesce(F("failing_since"), Now())
        if isinstance(error, PermanentError):
            columns["status"] = SyncState.Status.FAILED
            columns["attempts"] = F("attempts") + 1
            if state.poke_count == work.lease.poke_count:
                columns["dirty_at"] = None
        else:
            columns |= _still_dirty(state)
            columns["status"] = SyncState.Status.RETRYING
            if isinstance(error, RateLimited):
                wait = max(error.retry_after, 0.1)
            elif isinstance(error, ConfigurationError):
                # The closed account holds the row back longer, unless it is this one call that the key may not make.
                wait = 60.0 if isinstance(error, PermissionMissing) else 1.0
            else:
                columns["attempts"] = F("attempts") + 1
                longest = min(config.retry_max_delay, config.retry_base_delay * 2 ** min(state.attempts + 1, 30))
                wait = random.uniform(0, longest)  # noqa: S311
            columns["next_attempt_at"] = _in(wait)
        _give_back(state, columns)

    run_in_transaction(write)


def base_columns(base: Fields | None) -> dict[str, Any]:
    """The columns that hold a base; none to keep the old one."""
    return {} if base is None else {"base": base, "base_hash": fields_hash(base)}


def _still_dirty(state: SyncState) -> dict[str, Any]:
    return {"dirty_at": Now()} if state.dirty_at is None else {}


def _give_back(state: SyncState, columns: Mapping[str, Any]) -> None:
    released = {"lease_until": None, "lease_owner": "", "next_attempt_at": Now(), "updated_at": Now()}
    SyncState.objects.filter(pk=state.pk).update(**{**released, **columns})


def _in(seconds: float) -> Func:
    return Func(
        Value(seconds),
        template="clock_timestamp() + make_interval(secs => %(expressions)s)",
        output_field=SyncState._meta.get_field("next_attempt_at"),
    )
