"""Trying failed syncs again: by themselves for a day, or all that a person names, with one function beneath.

A row fails for good when the other side refuses what is sent. Some refusals end by themselves, as that of an account
that is limited; so a row whose refusal is not about its values is tried again every hour, for a day from its first
failure. After that, and for all others, a person decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import Q, QuerySet
from rest_framework import serializers

from customers.integrations import integrations
from customers.models import SyncState
from dbresilience.transactions import run_in_transaction
from operations.audit import SYSTEM, audit_record
from operations.long_actions.kinds import Batch, ItemsQuery, Kind, Outcome, Plan, skipped, succeeded
from operations.models import Operation, OperationItem
from operations.serializers import StrictSerializer
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

_AT_ONCE: Final = 1_000

# What is tried again by itself: failed for less than a day, last an hour ago or so (beat comes every hour, and a little
# early must not mean an hour later), not for its values. By the index syncstate_by_status.
RETRYABLE_SQL: Final = """
SELECT id FROM customers_syncstate
 WHERE status = 'failed' AND integration = %(integration)s
   AND last_error_code <> ALL (%(final)s)
   AND failing_since > statement_timestamp() - interval '1 day'
   AND updated_at < statement_timestamp() - interval '50 minutes'
   AND id > %(after)s
 ORDER BY id LIMIT %(limit)s
"""
# The failed rows of one integration, or of all, in the order of ids, from the index syncstate_by_status backwards.
FAILED_SQL: Final = """
SELECT id::text AS key, NULL::jsonb AS data FROM customers_syncstate
 WHERE status = 'failed' AND id > %(after)s::bigint AND integration = ANY (%(integrations)s)
 ORDER BY id LIMIT %(limit)s
"""


def failed_syncs_retry_once() -> int:
    """Have those failed rows looked at again that may succeed by now; how many."""
    count = 0
    for name, integration in integrations().items():
        after = 0
        while rows := _retryable(name, sorted(integration.final_codes), after):
            count += _marked(rows, name)
            after = rows[-1]
    if count:
        wake("sync")
        log.info("failed_syncs_retried", count=count)
    return count


def _retryable(integration: str, final: list[str], after: int) -> list[int]:
    values: dict[str, Any] = {"integration": integration, "final": final, "after": after, "limit": _AT_ONCE}
    with connection.cursor() as cursor:
        cursor.execute(RETRYABLE_SQL, values)
        return [row[0] for row in cursor.fetchall()]


def _marked(rows: list[int], integration: str) -> int:
    def work() -> int:
        count = SyncState.objects.filter(pk__in=rows).try_again()
        if count:
            detail = {"integration": integration, "count": count}
            audit_record(actor=SYSTEM, action="syncs.retried", target=f"integration:{integration}", detail=detail)
        return count

    return run_in_transaction(work)


def integration_named(value: str) -> None:
    """A validator: the name of an integration, or nothing for all of them."""
    if value and value not in settings.INTEGRATIONS:
        known = ", ".join(settings.INTEGRATIONS)
        raise serializers.ValidationError(f"There is no such integration. Known: {known}.", "invalid_value")


class FailedSyncsFilter(StrictSerializer):
    """Which failed rows are tried again."""

    integration = serializers.CharField(
        max_length=32, required=False, default="", allow_blank=True, validators=[integration_named]
    )
    dry_run = serializers.BooleanField(default=False)


class RetryFailedSyncs(Kind):
    """Failed rows, looked at again after all that is more urgent; an item is done when its row is marked."""

    name = "customers.retry_syncs"
    title = "Try failed synchronisations again"
    permission = "customers.look_again_syncstate"
    transactional = True
    batch_size = 1_000
    before_first = "0"
    filter_keys = {
        "integration": "name of the integration; of all without it",
        "dry_run": "true: what would be tried again is written down, and nothing is done",
    }
    filter_example = {"integration": "stripe"}

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        serializer = FailedSyncsFilter(data=dict(given))
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        rows = _failed(frozen)
        sample = [str(pk) for pk in rows.order_by("-pk").values_list("pk", flat=True)[:5]]
        return Plan(eligible=rows.count(), sample=sample)

    def items_query(self, frozen: Mapping[str, Any]) -> ItemsQuery:
        return ItemsQuery(FAILED_SQL, {"integrations": _names(frozen)})

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        ids = {int(item.key): item for item in batch.items}
        failed = set(SyncState.objects.filter(pk__in=ids, status=SyncState.Status.FAILED).values_list("pk", flat=True))
        is_dry = batch.filter.get("dry_run", False)
        if not is_dry:
            SyncState.objects.filter(pk__in=failed).try_again()
        outcomes = []
        for pk, item in ids.items():
            if pk not in failed:
                outcomes.append(skipped(item, "not_failed", "It is no failed one any more."))
            elif is_dry:
                outcomes.append(skipped(item, "dry_run", "It would be tried again."))
            else:
                outcomes.append(succeeded(item))
        return outcomes

    def result(self, operation: Operation) -> dict[str, Any]:
        if not operation.filter.get("dry_run", False):
            return {"retried": operation.succeeded, "skipped": operation.skipped}
        would = OperationItem.objects.filter(operation=operation, code="dry_run").count()
        return {"dry_run": True, "would_retry": would, "retried": 0, "skipped": operation.skipped - would}


def _failed(frozen: Mapping[str, Any]) -> QuerySet[SyncState]:
    return SyncState.objects.filter(Q(integration__in=_names(frozen)), status=SyncState.Status.FAILED)


def _names(frozen: Mapping[str, Any]) -> list[str]:
    chosen: str = frozen["integration"]
    return [chosen] if chosen else list(settings.INTEGRATIONS)
