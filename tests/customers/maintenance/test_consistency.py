"""Rules between customers and their sync states: found where they do not hold, mended where that is safe."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models.functions import Now

from customers.consistency.checks import CHECKS
from customers.consistency.fixing import consistency_fix_once
from customers.consistency.validating import consistency_validate
from customers.models import Conflict, Customer, SyncRequest, SyncState
from customers.services import customer_create, customer_delete
from operations.models import Operation
from tests.customers.conftest import Api
from tests.customers.maintenance.conftest import run
from tests.customers.sync.conftest import Side
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("C13", "C4", "C15")]

VALIDATE, FIX = "/customers/data-consistency/validate", "/customers/data-consistency/fix"


@pytest.fixture
def repairer(db: None) -> Api:
    return Api("operations:read", "operations:write")


def make_old(customer: Customer) -> None:
    Customer.objects.filter(pk=customer.pk).update(created_at="2020-01-01T00:00:00Z")


def broken(side: Side) -> dict[str, int]:
    """One thing that breaks each rule that can be mended by rule."""
    forgotten = customer_create(name="Forgotten")
    side.events()
    make_old(forgotten)
    states = [side.linked(name=name) for name in ("Deleted", "Idle", "Empty", "Hidden", "Failed")]
    deleted, idle, empty, hidden, failed = (side.state(customer) for customer in states)
    customer_delete(customer_id=states[0].pk)
    side.events()
    SyncRequest.objects.create(state=idle, method="update", body={"phone": "1"}, fields={"phone": "1"})
    SyncState.objects.filter(pk=empty.pk).update(status="conflict")
    Conflict.objects.create(state=hidden, kind="field", field="name")
    SyncState.objects.filter(pk=failed.pk).update(status="failed", failing_since=Now())
    assert deleted.status == "in_sync"
    return {check.name: 1 for check in CHECKS if check.fix is not None}


def counts(document: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["count"] for one in document["checks"] if one["count"]}


def test_it_says_that_everything_holds(side: Side, repairer: Api) -> None:
    side.linked(name="Ada")

    answer = repairer.get(VALIDATE)

    assert answer.status_code == 200
    assert (answer.json()["consistent"], answer.json()["complete"]) == (True, True)
    assert {one["name"] for one in answer.json()["checks"]} == {check.name for check in CHECKS}
    assert answer.json()["last_comparisons"] == {"memory": None}


def test_it_finds_and_mends_each(side: Side, repairer: Api) -> None:
    expected = broken(side)

    found = repairer.get(f"{VALIDATE}?integration_name=memory")
    tried = repairer.post(f"{FIX}?dry_run=true", None)
    still = counts(consistency_validate())
    mended = repairer.post(FIX, None)
    side.rest()

    assert counts(found.json()) == still == expected
    assert tried.json()["result"]["checks"] == {name: {"would_mend": 1} for name in expected}
    assert mended.status_code == 200
    assert mended.json()["result"]["checks"] == {name: {"mended": 1} for name in expected}
    assert consistency_validate()["consistent"]
    assert set(SyncState.objects.values_list("status", flat=True)) == {"in_sync", "deleted"}


def test_it_leaves_what_is_not_safe_to_a_person(side: Side, repairer: Api) -> None:
    side.world.add(name="Twin", email="ada@example.com")
    ada = side.linked(name="Ada", email="ada@example.com")
    SyncState.objects.filter(customer=ada).update(account="acct_other")

    answer = repairer.post(FIX, None)

    assert answer.json()["result"]["checks"] == {"orphaned": {"for_a_person": 1}, "other_account": {"for_a_person": 1}}
    assert answer.json()["plan"]["eligible"] == 0


def test_what_is_not_looked_at_in_time_has_no_count(side: Side) -> None:
    found = consistency_validate(seconds=0)

    assert (found["consistent"], found["complete"]) == (False, False)
    assert {one["count"] for one in found["checks"]} == {None}


def test_a_query_that_takes_too_long_is_ended(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    from customers.consistency import validating
    from customers.consistency.checks import Check

    slow = Check(name="slow", title="slow", sql="SELECT pg_sleep(30)::text", advice="")
    monkeypatch.setattr(validating, "CHECKS", (slow, *CHECKS[:1]))

    found = consistency_validate(seconds=0.2)

    assert [one["count"] for one in found["checks"]] == [None, None]
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.feature("F5")
def test_the_command_exits_by_what_it_finds(side: Side) -> None:
    expected = broken(side)

    before, document = run("customers_consistency", "validate")
    counted, plan = run("customers_consistency", "fix")
    fixed, _ = run("customers_consistency", "fix", "--apply")
    side.rest()
    after, _ = run("customers_consistency", "validate")

    assert (before, counts(document)) == (1, expected)
    assert (counted, plan["plan"]["eligible"]) == (0, len(expected))
    assert (fixed, after) == (0, 0)


def test_the_command_refuses_what_means_nothing(side: Side) -> None:
    with pytest.raises(CommandError, match="no such integration"):
        call_command("customers_consistency", "validate", "--integration", "fax")
    with pytest.raises(CommandError, match="goes with fix"):
        call_command("customers_consistency", "validate", "--apply")


@pytest.mark.feature("A16", "E9")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", VALIDATE),
        ("POST", FIX),
        ("POST", "/customers/cleanup-orphaned"),
        ("GET", "/customers/integration-health/memory"),
        ("GET", "/customers/drift"),
    ],
)
def test_they_are_closed_to_those_who_only_have_customers(side: Side, api: Api, method: str, path: str) -> None:
    answers = [api(method, path), api(method, f"/api/v1{path}/")]

    assert [answer.status_code for answer in answers] == [403, 403]


@pytest.mark.feature("A16")
def test_a_viewer_looks_and_changes_nothing(side: Side, staff_client: MakeClient) -> None:
    viewer = staff_client("viewer")

    assert viewer.get(VALIDATE).status_code == 200
    assert viewer.get("/customers/integration-health/memory/").status_code == 200
    assert viewer.post(FIX, content_type="application/json").status_code == 403


@pytest.mark.feature("C12")
def test_it_says_how_an_integration_is_doing(side: Side, repairer: Api) -> None:
    side.linked(name="Ada")
    path = "/customers/integration-health/memory"

    healthy = repairer.get(path).json()
    SyncState.objects.update(status="failed")
    degraded = repairer.get(path).json()
    SyncState.objects.update(dirty_at="2020-01-01T00:00:00Z")
    critical = repairer.get(path).json()

    assert [one["status"] for one in (healthy, degraded, critical)] == ["healthy", "degraded", "critical"]
    assert healthy["sync_states"] == {**dict.fromkeys(SyncState.Status.values, 0), "in_sync": 1}
    assert healthy["latest_requests"] == {"count": 1, "refused": 0, "failure_rate": 0.0}
    assert critical["backlog"]["oldest_seconds"] > 900
    assert repairer.get("/customers/integration-health/fax").status_code == 404
    assert repairer.get(path + "?live=true").status_code == 400


def test_much_is_looked_through_by_one_operation(
    side: Side, repairer: Api, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from customers.api import maintenance_views

    def no_time(*, integration: str) -> dict[str, Any]:
        return consistency_validate(integration=integration, seconds=0)

    monkeypatch.setattr(maintenance_views, "consistency_validate", no_time)

    answers = [repairer.get(VALIDATE), repairer.get(VALIDATE)]
    partial = staff_client("viewer").get(VALIDATE)

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[0].json()["filter"] == {"integration": "", "dry_run": True}
    assert repairer.get(answers[0]["Location"]).status_code == 200
    assert (partial.status_code, partial.json()["complete"]) == (200, False)


@pytest.mark.feature("F4")
def test_beat_begins_to_mend_what_there_is_once(side: Side) -> None:
    nothing = consistency_fix_once()
    broken(side)

    begun = [consistency_fix_once(), consistency_fix_once()]

    assert (nothing, begun) == (0, [1, 1])
    operation = Operation.objects.get()
    assert (operation.actor, operation.filter) == ("system", {"integration": "", "dry_run": False})
