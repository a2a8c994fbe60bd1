"""Planning an operation: what it would do, and the row that remembers what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from rest_framework.exceptions import ValidationError

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.correlation import correlation_id
from operations.errors import FieldError
from operations.long_actions.errors import InvalidOperation
from operations.long_actions.kinds import Kind, Plan, kind_named, kinds
from operations.models import Operation

REASON_LENGTH: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast an operation goes, and when it stops by itself.

    Attributes:
        canary: so many items first; the rest follows only if they went well. 0 is none.
        rate: items a second; None is as fast as it goes.
        ramp_seconds: how long it takes from a tenth of the rate to all of it, after the canary and after each resume.
        stop_error_rate: share of failures, above 0 and at most 1, beyond which it pauses by itself.
    """

    canary: int = 0
    rate: float | None = None
    ramp_seconds: int = 0
    stop_error_rate: float = 0.5


def operation_plan(*, kind: str, filter: Mapping[str, Any]) -> tuple[dict[str, Any], Plan]:
    """What an operation would do; nothing is written.

    Returns:
        The frozen filter, and the counts.

    Raises:
        InvalidOperation: there is no such kind.
        ValidationError: the filter is none of this kind, by field under ``filter``.
    """
    found = kind_of(kind)
    frozen = _frozen(found, filter)
    return frozen, found.plan(frozen)


def operation_create(
    *, kind: str, filter: Mapping[str, Any], reason: str, actor: str, pace: Pace | None = None
) -> Operation:
    """Plan an operation and keep the plan; nothing is done before it is started.

    Args:
        kind: name of a registered kind.
        filter: what it is to act upon, in the words of that kind.
        reason: why, for the audit trail; required.
        actor: who, as ``actor_of`` names them.
        pace: how fast; None is at once, all, and pausing when half of it fails.

    Raises:
        InvalidOperation: there is no such kind, or no reason, or no such pace.
        ValidationError: the filter is none of this kind.
    """
    pace = pace or Pace()
    reason = reason.strip()
    if not 0 < len(reason) <= REASON_LENGTH:
        raise _invalid("/reason", "required_field", f"Say why, in at most {REASON_LENGTH} characters.")
    _check(pace)
    frozen, plan = operation_plan(kind=kind, filter=filter)

    def work() -> Operation:
        operation = Operation.objects.create(
            kind=kind,
            filter=frozen,
            reason=reason,
            actor=actor[:200],
            correlation_id=correlation_id(),
            eligible=plan.eligible,
            ineligible=dict(plan.ineligible),
            batch=min(10, kind_of(kind).batch_size),
            **asdict(pace),
        )
        audit_record(
            actor=actor,
            action="operation.planned",
            target=f"operation:{operation.pk}",
            detail={"kind": kind, "filter": frozen, "reason": reason, "eligible": plan.eligible},
        )
        return operation

    operation = run_in_transaction(work)
    operation.refresh_from_db()
    return operation


def kind_of(name: str) -> Kind:
    """The registered kind of that name.

    Raises:
        InvalidOperation: there is none.
    """
    if (found := kind_named(name)) is None:
        known = ", ".join(kind.name for kind in kinds()) or "none"
        raise _invalid("/kind", "invalid_value", f"There is no such kind of operation. Known: {known}.")
    return found


def _frozen(kind: Kind, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return kind.freeze(given)
    except ValidationError as exc:
        # The kind knows nothing of the request around its filter.
        raise ValidationError({"filter": exc.detail}) from exc


def _check(pace: Pace) -> None:
    if not 0 <= pace.canary <= 1_000_000:
        raise _invalid("/canary", "invalid_value", "From 0 to 1,000,000 items.")
    if pace.rate is not None and not 0.01 <= pace.rate <= 100_000:
        raise _invalid("/rate", "invalid_value", "From 0.01 to 100,000 items a second.")
    if not 0 <= pace.ramp_seconds <= 86_400:
        raise _invalid("/ramp_seconds", "invalid_value", "From 0 to 86,400 seconds.")
    if pace.ramp_seconds and pace.rate is None:
        raise _invalid("/ramp_seconds", "invalid_value", "A ramp needs a rate.")
    if not 0 < pace.stop_error_rate <= 1:
        raise _invalid("/stop_error_rate", "invalid_value", "Above 0 and at most 1.")


def _invalid(pointer: str, code: str, detail: str) -> InvalidOperation:
    return InvalidOperation(detail, errors=[FieldError(pointer=pointer, code=code, detail=detail)])
