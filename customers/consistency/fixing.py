"""Mending what breaks the rules, as an operation: what is not mended by rule is told, and left to a person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db.models import Count
from rest_framework import serializers

from customers.consistency.checks import CHECKS, check_named
from customers.consistency.validating import consistency_validate
from customers.integrations import integration_get
from customers.sync.trying_again import integration_named
from operations.audit import SYSTEM
from operations.long_actions.beginning import operation_begin
from operations.long_actions.kinds import Batch, Item, Kind, NewItem, Outcome, Plan, skipped, succeeded
from operations.models import Operation, OperationItem, OperationState
from operations.serializers import StrictSerializer
from outbox.wakeup import wake

_PLAN_SECONDS = 3.0


class FixFilter(StrictSerializer):
    """What is mended."""

    integration = serializers.CharField(
        max_length=32, required=False, default="", allow_blank=True, validators=[integration_named]
    )
    dry_run = serializers.BooleanField(default=False)


class FixConsistency(Kind):
    """Goes through all checks and mends what they find; an item is one thing that breaks one rule."""

    name = "customers.fix"
    title = "Mend what is inconsistent"
    permission = "customers.look_again_syncstate"
    transactional = True
    batch_size = 500
    filter_keys = {
        "integration": "name of the integration; of all without it",
        "dry_run": "true: what would be mended is written down, and nothing is done",
    }
    filter_example = {"integration": "stripe", "dry_run": True}

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        serializer = FixFilter(data=dict(given))
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        found = consistency_validate(integration=frozen["integration"], seconds=_PLAN_SECONDS)["checks"]
        fixable = [one for one in found if one["fixable"]]
        left = {one["title"]: one["count"] for one in found if not one["fixable"] and one["count"]}
        # What could not be counted in time is much.
        eligible = sum(1_000_000 if one["count"] is None or one["more"] else one["count"] for one in fixable)
        return Plan(eligible=eligible, ineligible=left, sample=[key for one in fixable for key in one["sample"]][:5])

    def items(self, frozen: Mapping[str, Any], *, after: str, limit: int) -> Sequence[NewItem]:
        names = [frozen["integration"]] if frozen["integration"] else list(settings.INTEGRATIONS)
        places = [(name, check) for name in names for check in CHECKS]
        reached, key = 0, ""
        if after:
            integration, check_name, key = after.split(":", 2)
            reached = next(n for n, (name, one) in enumerate(places) if (name, one.name) == (integration, check_name))
        found: list[NewItem] = []
        for name, check in places[reached:]:
            keys = check.broken(integration_get(name), after=key, limit=limit - len(found))
            found += [NewItem(f"{name}:{check.name}:{one}") for one in keys]
            key = ""
            if len(found) >= limit:
                break
        return found

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        groups: dict[tuple[str, str], list[tuple[Item, str]]] = defaultdict(list)
        for item in batch.items:
            name, check_name, key = item.key.split(":", 2)
            groups[name, check_name].append((item, key))
        outcomes: list[Outcome] = []
        for (name, check_name), items in groups.items():
            outcomes += _mended(name, check_name, items, dry_run=batch.filter["dry_run"])
        wake("sync")
        return outcomes

    def result(self, operation: Operation) -> dict[str, Any]:
        counts: dict[str, dict[str, int]] = {}
        rows = OperationItem.objects.filter(operation=operation).exclude(state="pending").order_by()
        for row in rows.values("code", "message").annotate(count=Count("pk")):
            check, _, _ = row["message"].partition(":")
            word = {"": "mended", "dry_run": "would_mend"}.get(row["code"], "for_a_person")
            counts.setdefault(check, {})[word] = counts.get(check, {}).get(word, 0) + row["count"]
        return {
            "integration_name": operation.filter["integration"] or None,
            "dry_run": operation.filter["dry_run"],
            "checks": counts,
        }


def fix_begin(*, integration: str, dry_run: bool, actor: str, reason: str) -> Operation:
    """Begin to go through all checks, unless just that is under way; the operation.

    Args:
        integration: name of the only one; empty for all.
        dry_run: nothing is mended.
        actor: who, for the audit trail.
        reason: why.
    """
    filter = {"integration": integration, "dry_run": dry_run}
    begun = Operation.objects.open().exclude(state=OperationState.PLANNED)
    same = begun.filter(kind=FixConsistency.name, filter=filter).order_by("pk")
    return operation_begin(
        kind=FixConsistency.name, filter=filter, reason=reason, actor=actor, under_way=lambda: same.all().first()
    )


def consistency_fix_once() -> int:
    """Begin the daily repair if there is anything to mend; 1 if there is."""
    found = consistency_validate()["checks"]
    if not any(one["fixable"] and one["count"] != 0 for one in found):
        return 0
    fix_begin(integration="", dry_run=False, actor=SYSTEM, reason="The daily repair.")
    return 1


def _mended(name: str, check_name: str, items: Sequence[tuple[Item, str]], *, dry_run: bool) -> list[Outcome]:
    check = check_named(check_name)
    if check is None or check.fix is None:
        told = f"{check_name}: {check.advice if check else ''}"
        return [skipped(item, "for_a_person", told) for item, _ in items]
    if dry_run:
        return [skipped(item, "dry_run", f"{check_name}: {check.advice}") for item, _ in items]
    check.fix(integration_get(name), [key for _, key in items])
    return [succeeded(item, f"{check_name}: {check.advice}") for item, _ in items]
