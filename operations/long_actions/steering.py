"""Steering an operation: start, pause, resume, cancel. Each is one locked change of state, audited with it."""

from __future__ import annotations

from typing import Any, Final

from django.db import connection
from django.db.models.functions import Now

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.long_actions.errors import OperationNotFound, OperationStateRefused, OperationUnderWay
from operations.long_actions.kinds import kind_named
from operations.long_actions.pace import canary_ended
from operations.models import Operation, OperationState

# Who asks for one of a kind waits here until whoever asked before has committed, and so finds what that one began: each
# statement after this one sees what was committed before it. No constraint can say it, for what is the same differs by
# kind: of two comparisons the moments up to which they compare are not the same.
TURN_SQL: Final = "SELECT pg_advisory_xact_lock(hashtextextended('operations.begin.' || %(kind)s, 0))"

_P, _R, _H = OperationState.PLANNED, OperationState.RUNNING, OperationState.PAUSED

# Verb: from which states, to which, and the word of the audit trail. Asking for a state that it is in already changes
# nothing, so a repeated request is harmless.
_MOVES: Final = {
    "start": ({_P}, OperationState.RUNNING, "operation.started"),
    "pause": ({_R}, OperationState.PAUSED, "operation.paused"),
    "resume": ({_H}, OperationState.RUNNING, "operation.resumed"),
    "cancel": ({_P, _R, _H}, OperationState.CANCELLED, "operation.cancelled"),
}
VERBS: Final = tuple(_MOVES)


def operation_start(*, operation_id: int, actor: str) -> Operation:
    """Let a planned operation begin.

    Raises:
        OperationNotFound: there is none.
        OperationStateRefused: it was paused, or has ended.
        OperationUnderWay: one that does just the same was begun and is not over.
    """
    return operation_steer(verb="start", operation_id=operation_id, actor=actor)


def operation_pause(*, operation_id: int, actor: str, note: str = "") -> Operation:
    """Let no further batch begin. The batch under way, of half a second or so, is finished and recorded.

    Raises:
        OperationNotFound: there is none.
        OperationStateRefused: it is not running.
    """
    return operation_steer(verb="pause", operation_id=operation_id, actor=actor, note=note)


def operation_resume(*, operation_id: int, actor: str) -> Operation:
    """Go on with what a paused operation has not begun; with nothing left it completes. What failed stays so.

    What was counted towards its error rate is forgotten, its ramp begins anew, and a canary that has ended is
    behind it.

    Raises:
        OperationNotFound: there is none.
        OperationStateRefused: it is not paused.
    """
    return operation_steer(verb="resume", operation_id=operation_id, actor=actor)


def operation_cancel(*, operation_id: int, actor: str, note: str = "") -> Operation:
    """End an operation for good. What was begun is recorded as it ends; what was not stays pending for ever.

    Raises:
        OperationNotFound: there is none.
        OperationStateRefused: it has ended otherwise.
    """
    return operation_steer(verb="cancel", operation_id=operation_id, actor=actor, note=note)


def operation_steer(*, verb: str, operation_id: int, actor: str, note: str = "") -> Operation:
    """One of the four above, by its name."""
    sources, target, action = _MOVES[verb]

    def work() -> Operation:
        if verb == "start":
            _refuse_second(operation_id)
        operation = Operation.objects.select_for_update(no_key=True).filter(pk=operation_id).first()
        if operation is None:
            raise OperationNotFound
        if operation.state == target:
            return operation
        if operation.state not in sources:
            raise OperationStateRefused(f"The operation is {operation.state}; it cannot {verb}.")
        _move(operation, target, actor=actor, action=action, note=note)
        operation.refresh_from_db()
        return operation

    return run_in_transaction(work)


def turn_take(kind: str) -> None:
    """Wait until whoever begins an operation of this kind has committed; nobody else begins one until we have."""
    with connection.cursor() as cursor:
        cursor.execute(TURN_SQL, {"kind": kind})


def operation_end(operation: Operation, state: OperationState, *, action: str, note: str = "") -> None:
    """The holder's own change of state, in the transaction under way, under the row's lock."""
    _move(operation, state, actor="system", action=action, note=note)


def _refuse_second(operation_id: int) -> None:
    # The turn before the row, as whoever begins one anew: else each could hold what the other waits for.
    planned = Operation.objects.filter(pk=operation_id, state=_P).first()
    kind = kind_named(planned.kind) if planned is not None else None
    if planned is None or kind is None:
        return
    turn_take(planned.kind)
    earlier = kind.under_way(planned.filter)
    if earlier is not None and earlier.pk != operation_id:
        refused = OperationUnderWay(f"Operation {earlier.pk} does just that already; it is {earlier.state}.")
        refused.members["operation"] = earlier.pk
        raise refused


def _move(operation: Operation, state: OperationState, *, actor: str, action: str, note: str) -> None:
    changes: dict[str, Any] = {"state": state, "note": note[:500], "updated_at": Now()}
    if state is OperationState.RUNNING:
        changes |= {"next_step_at": Now(), "refilled_at": Now(), "ramp_from": Now()}
        changes |= {"tokens": 0.0, "recent_ended": 0.0, "recent_failed": 0.0}
        if operation.canary and canary_ended(operation):
            # Whoever resumes it has seen how the canary ended, and wants the rest.
            changes["canary_passed"] = True
        if operation.started_at is None:
            changes["started_at"] = Now()
    if state in (OperationState.CANCELLED, OperationState.COMPLETED, OperationState.FAILED):
        changes["finished_at"] = Now()
    Operation.objects.filter(pk=operation.pk).update(**changes)
    detail = {"kind": operation.kind, "begun": operation.begun, "items": operation.items}
    detail |= {"succeeded": operation.succeeded, "failed": operation.failed, "skipped": operation.skipped}
    target = f"operation:{operation.pk}"
    audit_record(actor=actor, action=action, target=target, detail=detail | ({"note": note[:500]} if note else {}))
