from __future__ import annotations

import pytest
from django.test import Client
from rest_framework.exceptions import ValidationError

from operations.long_actions.planning import operation_create, operation_plan
from operations.long_actions.runner import operations_run_once
from operations.long_actions.steering import operation_steer
from operations.models import Operation, OperationItem
from outbox.deciding import deliveries_skip
from outbox.errors import ErrorClass
from outbox.models import Delivery
from outbox.relay import relay_until_idle
from outbox.subscribers import Failure
from tests.operations.conftest import api, issued
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import publish_all

__all__ = ["api", "issued"]
pytestmark = [pytest.mark.feature("H4", "D10"), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def dead(collector: Collector) -> list[int]:
    collector.refuse = lambda event: Failure(event, ErrorClass.PERMANENT, "no", "no")
    publish_all(*[f"c{n}" for n in range(30)])
    relay_until_idle()
    return list(Delivery.objects.order_by("pk").values_list("pk", flat=True))


def run(operation: Operation) -> Operation:
    """Until nothing is left to do: what a worker and a relay do by turns."""
    for _ in range(60):
        operations_run_once()
        relay_until_idle()
        operation.refresh_from_db()
        if operation.state != "running":
            break
    return operation


def test_it_replays_what_a_filter_matched_and_tells_what_became_of_each(collector: Collector, dead: list[int]) -> None:
    operation = operation_create(
        kind="outbox.replay", filter={"subscriber": "collector", "code": "no"}, reason="fixed", actor="user:ann"
    )
    publish_all("late")
    relay_until_idle()
    deliveries_skip(ids=[dead[0]], actor="user:ann", reason="obsolete")
    collector.refuse = refusing("c1", error_class=ErrorClass.PERMANENT)
    operation_steer(verb="start", operation_id=operation.pk, actor="user:ann")

    operation = run(operation)

    assert (operation.state, operation.eligible) == ("completed", 30)
    assert (operation.succeeded, operation.failed) == (28, 1)
    assert Delivery.objects.get(aggregate_id="late").state == "dead"
    failed = OperationItem.objects.get(operation=operation, state="failed")
    assert (failed.key, failed.code) == (str(dead[1]), "refused")
    assert len(collector.got) == 28


def test_a_canary_that_fails_stops_it(collector: Collector, dead: list[int]) -> None:
    from operations.long_actions.planning import Pace

    operation = operation_create(
        kind="outbox.replay", filter={}, reason="try", actor="user:ann", pace=Pace(canary=3, stop_error_rate=0.1)
    )
    operation_steer(verb="start", operation_id=operation.pk, actor="user:ann")

    operation = run(operation)

    assert operation.state == "paused"
    assert operation.failed == 3
    assert Delivery.objects.filter(attempts=1).count() == 27


def test_it_counts_without_doing(collector: Collector, dead: list[int]) -> None:
    frozen, plan = operation_plan(kind="outbox.replay", filter={"aggregate_id": "c3"})

    assert (plan.eligible, len(plan.sample)) == (1, 1)
    assert frozen["upto"] >= dead[-1]
    assert not Operation.objects.exists()


@pytest.mark.parametrize("filter_", [{"colour": "red"}, {"error_class": "bad luck"}, {"since": "soon"}])
def test_it_refuses_a_filter_that_means_nothing(collector: Collector, filter_: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        operation_plan(kind="outbox.replay", filter=filter_)


def test_it_is_planned_from_a_group_over_the_api(api: Client, collector: Collector, dead: list[int]) -> None:
    (group,) = api.get("/api/v1/admin/outbox/groups").json()["results"]

    answer = api.post("/api/v1/admin/operations/", {**group["replay"], "reason": "fixed"}, "application/json")

    assert answer.status_code == 201
    assert answer.json()["plan"]["eligible"] == 30


@pytest.mark.feature("A16")
@pytest.mark.parametrize(
    ("name", "value"),
    [("since", "0001-01-01T00:00:00+23:59"), ("until", "9999-12-31T23:59:59-23:59"), ("ids", "123"), ("upto", 1.5)],
)
def test_it_names_the_condition_that_it_cannot_plan(
    api: Client, collector: Collector, name: str, value: object
) -> None:
    body = {"kind": "outbox.replay", "dry_run": True, "filter": {name: value}}

    answer = api.post("/api/v1/admin/operations/", body, "application/json")

    assert answer.status_code == 400
    assert name in str(answer.json()["errors"])
