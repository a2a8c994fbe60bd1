"""Having sync states looked at again because a person asked."""

from __future__ import annotations

from collections.abc import Sequence

from customers.models import SyncState
from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.wakeup import wake


def states_look_again(*, ids: Sequence[int], actor: str, reason: str = "") -> int:
    """Have the workers look at these states at once, and write down who asked; how many there are.

    Args:
        ids: numbers of sync states; those that name none are left out.
        actor: as ``actor_of`` names them.
        reason: why, for the audit trail alone.
    """

    def work() -> int:
        found = list(SyncState.objects.filter(pk__in=ids).order_by("pk").values_list("pk", flat=True))
        count = SyncState.objects.filter(pk__in=found).look_again()
        detail = {"reason": reason} if reason else {}
        for pk in found:
            audit_record(actor=actor, action="syncstate.poked", target=f"syncstate:{pk}", detail=detail)
        return count

    count = run_in_transaction(work)
    wake("sync")
    return count
