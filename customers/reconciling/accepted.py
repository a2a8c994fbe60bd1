"""The operation that repairs what a person accepted: each is looked at again, and mended if it is still so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from rest_framework import serializers

from customers.integrations import Integration, IntegrationError, PermanentError, integration_get
from customers.models import Drift, Priority
from customers.reconciling.calling import BulkCalls
from customers.reconciling.decisions import REPAIR_KIND
from customers.reconciling.drifts import drift_end, drift_record, drift_reopen
from customers.reconciling.examining import record_examine, unpushed_examine
from customers.reconciling.findings import Finding
from customers.reconciling.repairs import RepairRefused, drift_repair
from operations.long_actions.kinds import Batch, Item, ItemsQuery, Kind, Outcome, Plan, failed, skipped, succeeded
from operations.models import Operation
from operations.serializers import StrictSerializer

_ITEMS_SQL: Final = """
SELECT id::text AS key, NULL::jsonb AS data FROM customers_drift
 WHERE id = ANY (%(ids)s::bigint[]) AND id > %(after)s::bigint ORDER BY id LIMIT %(limit)s
"""


class RepairFilter(StrictSerializer):
    """Which differences."""

    ids = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1), min_length=1, max_length=1_000
    )


class RepairAccepted(Kind):
    """Accepted differences, repaired. An open one is none of them: accepting is a decision of its own."""

    name = REPAIR_KIND
    title = "Repair accepted differences"
    permission = "customers.accept_drift"
    transactional = False
    repeatable = True
    batch_size = 1
    before_first = "0"
    call_seconds = 60.0
    filter_keys = {"ids": "numbers of accepted differences, as a list"}
    filter_example = {"ids": [1]}

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        serializer = RepairFilter(data=dict(given))
        serializer.is_valid(raise_exception=True)
        return {"ids": sorted(set(serializer.validated_data["ids"]))}

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        accepted = Drift.objects.filter(pk__in=frozen["ids"], status=Drift.Status.ACCEPTED).count()
        others = len(frozen["ids"]) - accepted
        return Plan(eligible=accepted, ineligible={"not accepted": others} if others else {})

    def items_query(self, frozen: Mapping[str, Any]) -> ItemsQuery:
        return ItemsQuery(_ITEMS_SQL, {"ids": frozen["ids"]})

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        return [self._repair(item, batch) for item in batch.items]

    def result(self, operation: Operation) -> dict[str, Any]:
        return {"repaired": operation.succeeded, "not_repaired": operation.failed + operation.skipped}

    def _repair(self, item: Item, batch: Batch) -> Outcome:
        drift = Drift.objects.filter(pk=int(item.key), status=Drift.Status.ACCEPTED).first()
        if drift is None:
            return skipped(item, "not_accepted", "It is not waiting for its repair.")
        integration = integration_get(drift.integration)
        if (integration.account, integration.livemode) != (drift.account, drift.livemode):
            drift_reopen(drift, "The key in use is of another account or mode.")
            return failed(item, "other_account", "The key in use is of another account or mode.")
        try:
            return self._examined(item, drift, integration, BulkCalls(integration, batch))
        except RepairRefused as exc:
            drift_reopen(drift, exc.reason)
            return skipped(item, "refused", exc.reason)
        except PermanentError as exc:
            drift_reopen(drift, exc.message)
            return failed(item, exc.code or exc.error_class, exc.message)
        except IntegrationError as exc:
            # Whatever it did is found when it is accepted again.
            drift_reopen(drift, f"{exc.message} Accept it again.")
            return failed(item, exc.code or exc.error_class, exc.message)

    @staticmethod
    def _examined(item: Item, drift: Drift, integration: Integration, call: BulkCalls) -> Outcome:
        finding = _found(drift, integration, call)
        if finding is None:
            drift_end(drift, Drift.Status.GONE, "It was not so any more when it was to be repaired.")
            return skipped(item, "gone", "It is not so any more.")
        if (finding.kind, finding.repair, finding.customer_id) != (drift.kind, drift.repair, drift.customer_id):
            drift_end(drift, Drift.Status.GONE, "It is another difference now.")
            drift_record(integration, finding, operation_id=drift.operation_id)
            return skipped(item, "changed", "It is another difference now: decide anew.")
        done = drift_repair(integration, drift, call=call, priority=Priority.INTERACTIVE)
        drift_end(drift, Drift.Status.REPAIRED, done)
        return succeeded(item, done)


def _found(drift: Drift, integration: Integration, call: BulkCalls) -> Finding | None:
    if drift.remote_id:
        return record_examine(integration, drift.remote_id, call=call)
    customer_id: UUID | None = drift.customer_id
    return unpushed_examine(integration, customer_id) if customer_id else None
