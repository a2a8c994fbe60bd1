"""Differences as rows: written down when found, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.db import IntegrityError, connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from customers.integrations import Integration, RemoteRecord
from customers.models import Drift, SyncState
from customers.reconciling.conf import reconcile_settings
from customers.reconciling.findings import Finding, Kind, Repair, subject_of
from dbresilience.transactions import run_in_transaction

Status = Drift.Status

_AT_ONCE: Final = 2_000

# Those that ended long ago, oldest first, and what a comparison that never came to its end left behind.
PRUNE_SQL: Final = """
DELETE FROM customers_drift WHERE id IN (
  SELECT id FROM customers_drift WHERE ended_at < clock_timestamp() - make_interval(days => %(days)s)
   ORDER BY ended_at LIMIT %(limit)s)
"""
LEFT_SQL: Final = """
DELETE FROM customers_reconcileseen WHERE id IN (
  SELECT s.id FROM customers_reconcileseen s
   WHERE NOT EXISTS (SELECT 1 FROM operations_operation o
                      WHERE o.id = s.operation_id AND o.state IN ('planned', 'running', 'paused'))
   LIMIT %(limit)s)
"""


def drift_record(integration: Integration, finding: Finding, *, operation_id: int) -> Drift | None:
    """Write a finding down, or that it was found again.

    None when a person decided to leave just that as it is, or when the sync state moved since.
    """

    def work() -> Drift | None:
        if _moved(finding):
            return None
        others = _of(integration, finding.subject).filter(status=Status.OPEN).exclude(kind=finding.kind)
        others.update(status=Status.GONE, ended_at=Now(), outcome="It is another difference now.")
        rows = _of(integration, finding.subject)
        if rows.filter(status=Status.DECLINED, facts_hash=finding.facts_hash).exists():
            rows.filter(status=Status.OPEN).update(status=Status.GONE, ended_at=Now(), outcome="Declined before.")
            return None
        known = rows.filter(kind=finding.kind, status__in=[Status.OPEN, Status.ACCEPTED]).select_for_update().first()
        if known is None:
            drift = drift_new(integration, finding, operation_id=operation_id)
            drift.save(force_insert=True)
            return drift
        if known.status == Status.OPEN:
            Drift.objects.filter(pk=known.pk).update(**_facts(finding), operation_id=operation_id, seen_at=Now())
            known.refresh_from_db()
        return known

    try:
        return run_in_transaction(work)
    except IntegrityError:
        # Two comparisons found the same at the same moment: the unique constraint left one row, which is there now.
        return run_in_transaction(work)


def drift_new(integration: Integration, finding: Finding, *, operation_id: int) -> Drift:
    """A row for a finding, not saved yet."""
    return Drift(
        integration=integration.name,
        account=integration.account,
        livemode=integration.livemode,
        kind=finding.kind,
        subject=finding.subject,
        operation_id=operation_id,
        **_facts(finding),
    )


def missing_record(integration: Integration, records: Sequence[RemoteRecord], *, operation_id: int) -> None:
    """Write down many records that are not in the catalogue, in the transaction under way."""
    found = [
        Finding(
            kind=Kind.MISSING_HERE,
            remote_id=record.remote_id,
            detail="It is not in the catalogue.",
            repair=Repair.IMPORT,
        )
        for record in records
    ]
    names = [finding.subject for finding in found]
    declined = _all(integration).filter(status=Status.DECLINED, subject__in=names, kind=Kind.MISSING_HERE)
    left = set(declined.values_list("subject", flat=True))
    rows = [drift_new(integration, one, operation_id=operation_id) for one in found if one.subject not in left]
    Drift.objects.bulk_create(rows, ignore_conflicts=True)
    _all(integration).filter(status=Status.OPEN, subject__in=names, kind=Kind.MISSING_HERE).update(
        operation_id=operation_id, seen_at=Now()
    )


def drift_gone(integration: Integration, *, remote_id: str = "", customer_id: Any = None) -> int:
    """No difference was found: what was proposed about it is over."""
    outcome = "Both sides agree." if remote_id else "It is not missing there, or a link is proposed for it."
    return (
        _of(integration, subject_of(remote_id, customer_id))
        .filter(status=Status.OPEN)
        .update(status=Status.GONE, ended_at=Now(), outcome=outcome)
    )


def drift_end(drift: Drift, status: Drift.Status, outcome: str) -> None:
    """How it ended."""
    Drift.objects.filter(pk=drift.pk, status__in=[Status.OPEN, Status.ACCEPTED]).update(
        status=status, ended_at=Now(), outcome=outcome[:2000]
    )


def drift_reopen(drift: Drift, outcome: str) -> None:
    """The repair was not possible; a person sees why and decides anew, also where a rule would have mended it.

    A comparison that finds it again leaves it to the rule again.
    """
    Drift.objects.filter(pk=drift.pk, status=Status.ACCEPTED).update(
        status=Status.OPEN,
        safe=False,
        why_not=drift.why_not or "Its repair did not succeed.",
        outcome=outcome[:2000],
    )


def drifts_prune_once() -> int:
    """Remove what ended long ago, and what comparisons left that were cancelled; how many rows."""
    days, removed = reconcile_settings().retention, 0
    for statement in (PRUNE_SQL, LEFT_SQL):
        while count := run_in_transaction(lambda statement=statement: _removed(statement, days)):  # type: ignore[misc]
            removed += count
    return removed


def _moved(finding: Finding) -> bool:
    """Whether somebody worked on the state since; its lock holds off whoever is about to settle it."""
    if finding.state_id is None or finding.marks is None:
        return False
    states = SyncState.objects.select_for_update(no_key=True).filter(pk=finding.state_id)
    return list(states.values_list("lease_token", "poke_count")) not in ([finding.marks], [])


def _removed(statement: str, days: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, {"days": days, "limit": _AT_ONCE})
        return int(cursor.rowcount)


def _facts(finding: Finding) -> dict[str, Any]:
    return {
        "customer_id": finding.customer_id,
        "state_id": finding.state_id,
        "remote_id": finding.remote_id,
        "fields": list(finding.fields),
        "facts_hash": finding.facts_hash,
        "detail": finding.detail,
        "repair": finding.repair,
        "destroys": finding.destroys,
        "safe": finding.safe,
        "why_not": finding.why_not,
    }


def _all(integration: Integration) -> QuerySet[Drift]:
    return Drift.objects.filter(
        integration=integration.name, account=integration.account, livemode=integration.livemode
    )


def _of(integration: Integration, subject: str) -> QuerySet[Drift]:
    return _all(integration).filter(subject=subject)
