"""Comparing both sides, importing what only the other side has, and repairs, as operations."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from django.conf import settings
from django.db import connections
from django.db.models import Count
from django.utils import timezone
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from customers.integrations import (
    ConfigurationError,
    IntegrationError,
    PermanentError,
    RateLimited,
    integration_get,
    integrations,
)
from customers.models import Customer, Drift, ReconcileRun, SyncState
from customers.reconciling.calling import BulkCalls
from customers.reconciling.items import put_off
from customers.reconciling.pages import READERS
from customers.reconciling.steps import CHUNK, Steps, chain_ended, pages_failed, run_open
from customers.sync.trying_again import integration_named
from operations.audit import SYSTEM
from operations.long_actions.beginning import operation_begin
from operations.long_actions.kinds import Batch, Item, Kind, NewItem, Outcome, Plan, failed, skipped
from operations.models import Operation, OperationState
from operations.serializers import KnownField, StrictSerializer

# The list is read in windows of the age of its records, some of them at once: an answer takes long, and one reader
# that waits for each would never use the rate. Accounts grow, so each window is longer than the one before.
_WINDOWS: Final = tuple(timedelta(days=days) for days in (1, 7, 30, 90, 365, 730, 1460))
ORPHANS: Final = sorted(set(Drift.Kind.values) - {Drift.Kind.MISSING_HERE, Drift.Kind.FIELD_DIFFERENCE})
"""Kinds of differences in which something belongs to nobody."""

_SKEW: Final = timedelta(minutes=1)
_FAILURES_MOST: Final = 100
_LONGEST_PAUSE: Final = 5.0
_COUNTED_AT_MOST: Final = 1_000_000


class ReconcileFilter(StrictSerializer):
    """What is compared."""

    integration = serializers.CharField(max_length=32, required=False, allow_blank=True, validators=[integration_named])
    dry_run = serializers.BooleanField(default=False)
    only = serializers.ListField(child=KnownField(choices=Drift.Kind.choices), default=list)
    until = serializers.DateTimeField(required=False)


class Reconcile(Kind):
    """Reads all of the other side, a page at a time, and compares it with the catalogue."""

    name = "customers.reconcile"
    title = "Compare both sides"
    permission = "customers.reconcile_drift"
    transactional = False
    repeatable = True
    grows = True
    batch_size = READERS
    filter_keys = {
        "integration": "name of the integration; may be left out where there is one",
        "dry_run": "true: differences are written down, and nothing is repaired or imported",
        "only": "kinds of differences, as a list: " + ", ".join(Drift.Kind.values),
    }
    filter_example: ClassVar[Mapping[str, Any]] = {"integration": "stripe", "dry_run": True}
    imports_only: ClassVar[bool] = False

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        serializer = ReconcileFilter(data=dict(given))
        serializer.is_valid(raise_exception=True)
        values = serializer.validated_data
        name = values.get("integration") or next(iter(settings.INTEGRATIONS), "")
        if not values.get("integration") and len(settings.INTEGRATIONS) != 1:
            raise ValidationError({"integration": ["Name one: each is compared by itself."]})
        until: datetime = values.get("until") or timezone.now()
        return {
            "integration": name,
            "dry_run": values["dry_run"],
            "only": sorted(values["only"]),
            "until": until.isoformat(),
        }

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        states = SyncState.objects.filter(integration=frozen["integration"]).order_by()[:_COUNTED_AT_MOST].count()
        customers = Customer.objects.order_by()[:_COUNTED_AT_MOST].count()
        steps = len(_WINDOWS) + 1 + states // 500
        return Plan(eligible=steps if self.imports_only else steps + states // CHUNK + customers // CHUNK + 6)

    def under_way(self, frozen: Mapping[str, Any]) -> Operation | None:
        return comparison_under_way(self, frozen)

    def items(self, frozen: Mapping[str, Any], *, after: str, limit: int) -> Sequence[NewItem]:
        if after:
            return []
        # Its clock may be ahead of ours. What comes to be meanwhile is ahead of the first page, and on none of them.
        until = datetime.fromisoformat(frozen["until"]) + _SKEW
        ends = [until, *(until - age for age in _WINDOWS)]
        return [
            NewItem(
                f"page:{number}",
                {
                    "step": "page",
                    "window": number,
                    "number": 0,
                    "since": since.isoformat() if since else None,
                    "until": end.isoformat(),
                    "after": "",
                },
            )
            for number, (end, since) in enumerate(zip(ends, [*ends[1:], None], strict=True))
        ]

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        call = BulkCalls(integration_get(batch.filter["integration"]), batch)
        run_open(batch, call)
        steps = Steps(batch, call, imports_only=self.imports_only)

        def one(item: Item) -> Outcome:
            return _outcome(steps, item, batch)

        if len(batch.items) == 1:
            outcomes = [one(batch.items[0])]
        else:
            with ThreadPoolExecutor(max_workers=len(batch.items), thread_name_prefix="reconcile") as pool:
                outcomes = list(pool.map(lambda item: _in_thread(lambda: one(item)), batch.items))
        if chain_ended(batch, outcomes):
            following = (
                NewItem("close:1", {"step": "close", "number": 1})
                if self.imports_only
                else NewItem("unseen:0", {"step": "unseen", "after": 0})
            )
            outcomes[-1] = replace(outcomes[-1], then=(*outcomes[-1].then, following))
        return outcomes

    def result(self, operation: Operation) -> dict[str, Any]:
        run = ReconcileRun.objects.filter(operation_id=operation.pk).first() or ReconcileRun()
        found: dict[str, int] = {}
        counts = {"repaired": 0, "repairable": 0, "proposed": 0, "other": 0}
        rows = Drift.objects.filter(operation_id=operation.pk).order_by()
        for row in rows.values("kind", "status", "safe").annotate(count=Count("pk")):
            found[row["kind"]] = found.get(row["kind"], 0) + row["count"]
            counts[_told(row["status"], row["safe"])] += row["count"]
        if not self.imports_only and not operation.filter["dry_run"] and run.missing:
            found[Drift.Kind.MISSING_HERE] = found.get(Drift.Kind.MISSING_HERE, 0) + run.missing
        return {
            "integration_name": operation.filter["integration"],
            "dry_run": operation.filter["dry_run"],
            # Of what was asked for, which may be a part; the run says whether that was all.
            "complete": run.finished_at is not None and not pages_failed(operation.pk),
            "compared": run.compared,
            "missing_here": run.missing,
            "imported": run.imported,
            "differences": found,
            **counts,
        }


class ImportRemote(Reconcile):
    """Takes into the catalogue what only the other side has; nothing that is known is looked at or changed."""

    name = "customers.import"
    title = "Import what only the other side has"
    imports_only = True


def comparison_under_way(kind: Kind, filter: Mapping[str, Any]) -> Operation | None:
    """An operation that was begun, is not over and compares just the same; two at once would only share the rate."""
    frozen = {**kind.freeze(filter), "until": ""}
    begun = Operation.objects.open().exclude(state=OperationState.PLANNED)
    for earlier in begun.filter(kind=kind.name).order_by("pk"):
        if {**earlier.filter, "until": ""} == frozen:
            return earlier
    return None


def comparison_begin(
    integration: str, *, actor: str, reason: str, dry_run: bool = False, kind: type[Reconcile] = Reconcile
) -> Operation:
    """Begin to compare both sides, or to import, unless that is under way; the operation.

    Args:
        integration: name of the other side.
        actor: who, for the audit trail.
        reason: why.
        dry_run: differences are written down, and nothing is mended.
        kind: ``ImportRemote`` to take in what only the other side has, and to look at nothing else.
    """
    filter = {"integration": integration, "dry_run": dry_run}
    return operation_begin(
        kind=kind.name,
        filter=filter,
        reason=reason,
        actor=actor,
        under_way=lambda: comparison_under_way(kind(), filter),
    )


def comparisons_begin_once() -> int:
    """Begin the daily comparison of each integration whose key can be used; how many."""
    count = 0
    for name, integration in integrations().items():
        if integration.is_set_up():
            comparison_begin(name, actor=SYSTEM, reason="The daily comparison.")
            count += 1
    return count


def _told(status: str, safe: bool) -> str:
    """Under which word of a result a difference counts."""
    if status == Drift.Status.OPEN:
        return "repairable" if safe else "proposed"
    return "repaired" if status == Drift.Status.REPAIRED else "other"


def _outcome(steps: Steps, item: Item, batch: Batch) -> Outcome:
    """One step; what the other side could not answer now is put off, and so the step comes once more."""
    try:
        return steps.take(item)
    except (ConfigurationError, PermanentError) as exc:
        return failed(item, exc.code or exc.error_class, exc.message)
    except IntegrationError as exc:
        # No token is the usual state of a bulk call: it is no failure, and waiting is all there is to do.
        is_limit = isinstance(exc, RateLimited)
        failures = int(item.data.get("failures", 0)) + (0 if is_limit else 1)
        if failures > _FAILURES_MOST:
            return failed(item, exc.code or exc.error_class, exc.message)
        wait = exc.retry_after if isinstance(exc, RateLimited) else 0.1 * failures
        time.sleep(min(max(wait, 0.01), _LONGEST_PAUSE, batch.remaining()))
        return replace(skipped(item, "put_off", exc.message), then=(put_off(item, failures=failures),))


def _in_thread(function: Any) -> Any:
    try:
        return function()
    finally:
        connections.close_all()
