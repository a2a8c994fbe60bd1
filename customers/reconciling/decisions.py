"""A person's decision about a proposal: have it repaired, or leave it as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Q
from django.db.models.functions import Now

from customers.errors import CustomerError
from customers.models import Conflict, Drift, SyncState
from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.long_actions.planning import operation_create
from operations.long_actions.steering import operation_start
from operations.models import Operation

REPAIR_KIND = "customers.repair"
_AT_ONCE = 1_000


class DriftNotFound(CustomerError):
    """There is no such difference."""

    status = 404
    code = "not_found"
    title = "Not found"


class DriftDecided(CustomerError):
    """It was decided before, or is not there any more."""

    status = 409
    code = "drift_decided"
    title = "Conflict"


class DriftUnrepairable(CustomerError):
    """There is nothing that could be done about it from here: it is mended in the integration, or declined."""

    status = 409
    code = "drift_unrepairable"
    title = "Conflict"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Proposals that are being repaired, and the operation that does it."""

    ids: Sequence[int]
    operation: Operation


@dataclass(frozen=True, slots=True)
class Declined:
    """Differences that were left as they are, and the conflicts about the same records and customers that stay open."""

    ids: Sequence[int]
    conflicts: Sequence[Conflict]


def drifts_accept(*, ids: Sequence[int], actor: str, reason: str = "") -> Accepted:
    """Have proposals repaired, by an operation that looks at each again first; of several, those that can be.

    Args:
        ids: numbers of differences, at most a thousand.
        actor: as ``actor_of`` names them.
        reason: why, for the audit trail.

    Raises:
        DriftNotFound: none of them is there.
        DriftDecided: all of them were decided before.
        DriftUnrepairable: none of the open ones has a repair.
    """
    wanted = list(dict.fromkeys(ids))[:_AT_ONCE]

    def work() -> Accepted:
        rows = list(Drift.objects.filter(pk__in=wanted).select_for_update(no_key=True).order_by("pk"))
        if not rows:
            raise DriftNotFound
        waiting = [row for row in rows if row.status == Drift.Status.OPEN]
        if not waiting:
            raise DriftDecided
        repairable = [row.pk for row in waiting if row.repair]
        if not repairable:
            raise DriftUnrepairable
        Drift.objects.filter(pk__in=repairable).update(status=Drift.Status.ACCEPTED, decided_by=actor[:200], outcome="")
        for pk in repairable:
            detail = {"reason": reason} if reason else {}
            audit_record(actor=actor, action="drift.accepted", target=f"drift:{pk}", detail=detail)
        operation = operation_create(
            kind=REPAIR_KIND, filter={"ids": repairable}, reason=reason or "Accepted proposals.", actor=actor
        )
        return Accepted(repairable, operation_start(operation_id=operation.pk, actor=actor))

    return run_in_transaction(work)


def drifts_decline(*, ids: Sequence[int], actor: str, reason: str = "") -> Declined:
    """Leave differences as they are; the same facts are not asked about again.

    Conflicts ask other questions, about the same records: they stay open, and whoever declines is told so.

    Args:
        ids, actor, reason: as in ``drifts_accept``.

    Raises:
        DriftNotFound: none of them is there.
        DriftDecided: all of them were decided before.
    """
    wanted = list(dict.fromkeys(ids))[:_AT_ONCE]

    def work() -> Declined:
        rows = list(Drift.objects.filter(pk__in=wanted).select_for_update(no_key=True).order_by("pk"))
        if not rows:
            raise DriftNotFound
        waiting = [row for row in rows if row.status == Drift.Status.OPEN]
        if not waiting:
            raise DriftDecided
        for row in waiting:
            detail = {"reason": reason} if reason else {}
            audit_record(actor=actor, action="drift.declined", target=f"drift:{row.pk}", detail=detail)
        declined = [row.pk for row in waiting]
        Drift.objects.filter(pk__in=declined).update(
            status=Drift.Status.DECLINED, decided_by=actor[:200], ended_at=Now(), outcome=reason[:2000]
        )
        return Declined(declined, drifts_conflicts(waiting))

    return run_in_transaction(work)


def drifts_conflicts(drifts: Sequence[Drift]) -> list[Conflict]:
    """The open conflicts about the records and customers that differences speak of."""
    # By the primary key and the two unique indexes of states.
    states = Q(pk__in={one.state_id for one in drifts if one.state_id})
    for integration, account, livemode in {(one.integration, one.account, one.livemode) for one in drifts}:
        there = {"integration": integration, "account": account, "livemode": livemode}
        same = [
            one for one in drifts if (one.integration, one.account, one.livemode) == (integration, account, livemode)
        ]
        states |= Q(**there, remote_id__in={one.remote_id for one in same if one.remote_id})
        states |= Q(**there, customer__in={one.customer_id for one in same if one.customer_id})
    found = list(SyncState.objects.filter(states).values_list("pk", flat=True))
    return list(Conflict.objects.open().filter(state__in=found).select_related("state").order_by("pk"))
