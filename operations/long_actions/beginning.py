"""Beginning an operation unless just that is under way: of several who ask at once, one begins it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dbresilience.transactions import run_in_transaction
from operations.long_actions.planning import operation_create
from operations.long_actions.steering import operation_start, turn_take
from operations.models import Operation


def operation_begin(
    *,
    kind: str,
    filter: Mapping[str, Any],
    reason: str,
    actor: str,
    under_way: Callable[[], Operation | None],
) -> Operation:
    """Plan and start an operation, or take what is under way; the operation.

    Args:
        kind: name of a registered kind.
        filter: what it is to act upon.
        reason: why, for the audit trail.
        actor: who, as ``actor_of`` names them.
        under_way: looks for one that does the same; None to begin one.

    Raises:
        InvalidOperation: there is no such kind, or no reason.
        ValidationError: the filter is none of this kind.
    """

    def work() -> Operation:
        turn_take(kind)
        earlier = under_way()
        if earlier is not None:
            return earlier
        operation = operation_create(kind=kind, filter=filter, reason=reason, actor=actor)
        return operation_start(operation_id=operation.pk, actor=actor)

    return run_in_transaction(work)
