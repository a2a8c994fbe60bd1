"""A person's decision about a conflict: whose value holds.

Nothing is pushed or pulled here. The base is rewritten so that the value that gives way counts as agreed: then the
other side alone has changed, and the next look does what it always does. It compares with what both sides hold by
then, so a value that nobody has seen yet is never overwritten: it becomes a conflict of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from django.db.models.functions import Now

from customers.errors import CustomerError
from customers.models import Conflict, SyncState
from customers.sync.advice import conflict_advice
from customers.sync.fields import fields_advance
from customers.sync.settle import base_columns
from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.wakeup import wake

Side = Literal["ours", "theirs"]

# Whose value may hold, by kind: what the catalogue cannot take in it cannot be given by a decision either.
_TAKEN = {
    Conflict.Kind.FIELD: ("ours", "theirs"),
    Conflict.Kind.EMAIL_TAKEN: ("ours",),
    Conflict.Kind.REFUSED_HERE: ("ours",),
}


class ConflictNotFound(CustomerError):
    """There is no such conflict."""

    status = 404
    code = "not_found"
    title = "Not found"


class ConflictClosed(CustomerError):
    """The conflict was resolved before."""

    status = 409
    code = "conflict_closed"
    title = "Conflict"


class ConflictUndecidable(CustomerError):
    """This kind of conflict is not settled by taking one side's value."""

    status = 409
    code = "conflict_undecidable"
    title = "Conflict"


def conflict_sides(conflict: Conflict) -> tuple[str, ...]:
    """Whose value a person may let hold; empty when the conflict is of another kind."""
    linked = conflict.state.customer_id is not None and bool(conflict.field)
    return _TAKEN.get(Conflict.Kind(conflict.kind), ()) if linked else ()


def conflict_resolve(
    *, conflict_id: int, take: Side, actor: str, reason: str = "", customer_id: UUID | None = None
) -> Conflict:
    """Let one side's value of a field hold, have the customer looked at again, and write down who decided.

    Args:
        take: ``ours``, the value here, or ``theirs``.
        actor: as ``actor_of`` names them.
        reason: why, for the audit trail alone.
        customer_id: the conflict must be this customer's.

    Raises:
        ConflictNotFound: there is none, or it is another customer's.
        ConflictClosed: it was resolved before, by a person or by a newer change.
        ConflictUndecidable: it is not about a field of both sides, or the catalogue cannot hold their value.
    """

    def work() -> Conflict:
        found = Conflict.objects.filter(pk=conflict_id).select_related("state").first()
        if found is None or customer_id not in (None, found.state.customer_id):
            raise ConflictNotFound
        # The state's lock comes first, as a look takes it: no look decides by the old base while this one is written.
        state = SyncState.objects.select_for_update(no_key=True).get(pk=found.state_id)
        conflict = Conflict.objects.select_for_update().get(pk=conflict_id)
        conflict.state = state
        if conflict.status != Conflict.Status.OPEN:
            raise ConflictClosed
        if take not in conflict_sides(conflict):
            what = f"This conflict is not settled by taking {'what is here' if take == 'ours' else 'what is there'}."
            raise ConflictUndecidable(f"{what} {conflict_advice(conflict.kind)}")
        yields = conflict.theirs if take == "ours" else conflict.ours
        base = fields_advance(state.base, {conflict.field: yields}, [conflict.field])
        SyncState.objects.filter(pk=state.pk).update(**base_columns(base))
        SyncState.objects.filter(pk=state.pk).look_again()
        Conflict.objects.filter(pk=conflict_id).update(
            status=Conflict.Status.RESOLVED, resolution=f"{take}, by {actor}"[:64], resolved_at=Now()
        )
        detail = {"take": take, "field": conflict.field, "kind": conflict.kind, "customer": str(state.customer_id)}
        if reason:
            detail["reason"] = reason
        audit_record(actor=actor, action="conflict.resolved", target=f"conflict:{conflict_id}", detail=detail)
        conflict.refresh_from_db()
        return conflict

    conflict = run_in_transaction(work)
    wake("sync")
    return conflict


@dataclass(frozen=True, slots=True)
class Resolved:
    """How many of several decisions were made."""

    resolved: int
    refused: int


def conflicts_resolve(*, ids: Sequence[int], take: Side, actor: str) -> Resolved:
    """Decide several alike, each on its own: what cannot be decided so stops none of the others."""
    resolved = 0
    for conflict_id in ids:
        try:
            conflict_resolve(conflict_id=conflict_id, take=take, actor=actor)
        except (ConflictNotFound, ConflictClosed, ConflictUndecidable):
            continue
        resolved += 1
    return Resolved(resolved=resolved, refused=len(ids) - resolved)
