"""Bulk replay as an operation: everything a filter matches is tried again, in batches, and followed to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db import connection
from rest_framework.exceptions import ValidationError

from operations.long_actions.kinds import Batch, ItemsQuery, Kind, Outcome, Plan, failed, skipped, succeeded, waiting
from outbox.deciding import deliveries_retry
from outbox.errors import InvalidFilter
from outbox.models import Delivery
from outbox.selecting import ITEMS_SQL, DeliveryFilter, deliveries_choose, deliveries_plan, filter_values

SAMPLE: Final = 5

# Serves the freezing of a filter: later failures have higher ids.
NEWEST_SQL: Final = "SELECT COALESCE(max(id), 0) FROM outbox_delivery"


class ReplayDeliveries(Kind):
    """Dead deliveries, tried again; an item succeeds when its event went through, and fails when it is dead again."""

    name = "outbox.replay"
    title = "Replay dead deliveries"
    permission = "outbox.retry_delivery"
    transactional = True
    batch_size = 1_000
    before_first = "0"
    most_waiting = 5_000
    filter_keys = {
        "ids": "numbers of deliveries, as a list",
        "events": "ids of events, as a list",
        "subscriber": "name of the subscriber",
        "topic": "topic of the events",
        "type": "type of the events",
        "aggregate_type": "kind of what the events are about",
        "aggregate_id": "id of what the events are about",
        "error_class": "class of the error, as its delivery shows it",
        "code": "code of the error, as its delivery shows it",
        "fingerprint": "kind of failure, as its delivery shows it",
        "since": "first failed at this time or later, as 2026-03-01T00:00:00Z",
        "until": "first failed before this time",
        "upto": "no later delivery than this number",
        "states": "dead, retrying or both, as a list; dead alone without it",
    }
    item_page = "admin:outbox_delivery_change"
    filter_example = {"subscriber": "kafka", "since": "2026-03-01T00:00:00Z"}

    def freeze(self, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            chosen = DeliveryFilter.from_json(given)
            if chosen.upto is None:
                with connection.cursor() as cursor:
                    cursor.execute(NEWEST_SQL)
                    chosen = DeliveryFilter.from_json({**chosen.as_json(), "upto": cursor.fetchone()[0]})
        except InvalidFilter as exc:
            name, _, detail = str(exc).partition(": ")
            raise ValidationError({name: [detail]} if detail else {"non_field_errors": [str(exc)]}) from exc
        return chosen.as_json()

    def plan(self, frozen: Mapping[str, Any]) -> Plan:
        chosen = DeliveryFilter.from_json(frozen)
        counted = deliveries_plan(chosen)
        sample = [str(one) for one in deliveries_choose(chosen, most=SAMPLE)]
        return Plan(eligible=counted.eligible, ineligible=counted.not_eligible, sample=sample)

    def items_query(self, frozen: Mapping[str, Any]) -> ItemsQuery:
        return ItemsQuery(ITEMS_SQL, filter_values(DeliveryFilter.from_json(frozen)))

    def carry_out(self, batch: Batch) -> Sequence[Outcome]:
        ids = {int(item.key): item for item in batch.items}
        retried = set(deliveries_retry(ids=list(ids), actor=batch.actor, reason=batch.reason))
        message = "It was resolved meanwhile, or waits behind an earlier event of its aggregate."
        return [waiting(item) if key in retried else skipped(item, "not_open", message) for key, item in ids.items()]

    def follow(self, batch: Batch) -> Sequence[Outcome]:
        ids = {int(item.key): item for item in batch.items}
        found = Delivery.objects.filter(pk__in=list(ids)).values_list("pk", "state", "resolution", "code", "message")
        states = {key: rest for key, *rest in found}
        outcomes: list[Outcome] = []
        for key, item in ids.items():
            state, resolution, code, message = states.get(key, ("gone", "", "", ""))
            if state == "resolved" and resolution == "delivered":
                outcomes.append(succeeded(item))
            elif state == "dead":
                outcomes.append(failed(item, code, message[:500]))
            elif state != "retrying":
                outcomes.append(skipped(item, resolution or state))
        return outcomes
