"""One comparison of the same at a time, whoever begins it: beat, the command, the API or the console."""

from __future__ import annotations

import threading

import pytest
from django.db import transaction
from pytest_django import Settings

from customers.models import Drift
from customers.reconciling.kinds import comparisons_begin_once
from operations.long_actions.planning import operation_create
from operations.long_actions.steering import operation_start
from operations.models import Operation
from tests.customers.maintenance.conftest import linked, run
from tests.customers.races import in_threads, wait_until_somebody_waits_for_me
from tests.customers.stripe.conftest import StripeSide
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("C15", "F4", "H6")]


def planned(**filter: object) -> Operation:
    """A comparison that somebody planned."""
    return operation_create(
        kind="customers.reconcile", filter={"integration": "stripe", **filter}, reason="see", actor="user:ann"
    )


def test_beat_compares_what_has_a_key_once_at_a_time(both: StripeSide, settings: Settings) -> None:
    begun = [comparisons_begin_once(), comparisons_begin_once()]
    settings.STRIPE_API_KEY = ""

    assert (begun, comparisons_begin_once()) == ([1, 1], 0)
    assert Operation.objects.get().reason == "The daily comparison."


def test_two_beats_begin_one_comparison(both: StripeSide) -> None:
    """The second one asks while the first has begun and not committed."""
    second: list[list[Exception]] = []
    other = threading.Thread(target=lambda: second.append(in_threads(comparisons_begin_once)))

    with transaction.atomic():
        comparisons_begin_once()
        other.start()
        wait_until_somebody_waits_for_me()
    other.join(60)

    assert second == [[]]
    assert Operation.objects.get().state == "running"


def test_a_plan_that_nobody_starts_keeps_no_comparison_from_beginning(both: StripeSide) -> None:
    planned()

    comparisons_begin_once()

    assert set(Operation.objects.values_list("state", flat=True)) == {"planned", "running"}


def test_it_starts_no_second_plan_over_the_api(both: StripeSide, staff_client: MakeClient) -> None:
    comparisons_begin_once()
    running, second = Operation.objects.get(), planned()
    client = staff_client("operator")

    answer = client.post(f"/api/v1/admin/operations/{second.pk}/start/", content_type="application/json")

    second.refresh_from_db()
    assert (answer.status_code, answer.json()["code"], answer.json()["operation"]) == (
        409,
        "operation_under_way",
        running.pk,
    )
    assert second.state == "planned"


def test_it_starts_one_that_compares_otherwise(both: StripeSide) -> None:
    comparisons_begin_once()

    other = operation_start(operation_id=planned(dry_run=True).pk, actor="user:ann")

    assert other.state == "running"


def test_the_console_keeps_the_plan_and_says_what_is_under_way(both: StripeSide, staff_client: MakeClient) -> None:
    comparisons_begin_once()
    running = Operation.objects.get()
    form = {"kind": "customers.reconcile", "filter": '{"integration": "stripe"}', "reason": "see", "start": "on"}

    answer = staff_client("operator").post(
        "/admin/operations/operation/plan/",
        {**form, "canary": 0, "ramp_seconds": 0, "stop_error_percent": 50},
        follow=True,
    )

    page = answer.content.decode()
    assert (
        f"Operation {running.pk} does just that already; it is running. This one was planned and not started." in page
    )
    assert Operation.objects.latest("pk").state == "planned"


def test_of_two_plans_that_are_started_at_once_one_runs(both: StripeSide) -> None:
    plans = [planned(), planned()]

    errors = in_threads(*[lambda plan=plan: operation_start(operation_id=plan.pk, actor="user:ann") for plan in plans])

    assert [type(error).__name__ for error in errors] == ["OperationUnderWay"]
    assert sorted(Operation.objects.values_list("state", flat=True)) == ["planned", "running"]


def test_the_command_takes_part_in_what_runs_and_not_in_a_plan(both: StripeSide) -> None:
    linked(both, name="Ada")
    plan = planned()
    comparisons_begin_once()

    status, document = run("stripe_reconcile")

    plan.refresh_from_db()
    assert (status, document["id"], plan.state) == (0, Operation.objects.latest("pk").pk, "planned")
    assert not Drift.objects.exists()
