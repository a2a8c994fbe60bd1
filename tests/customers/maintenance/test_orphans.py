"""What belongs to nobody, on either side, over the API and from the shell; and decisions over the API."""

from __future__ import annotations

import pytest

from customers.models import Drift, SyncRequest
from customers.services import customer_delete
from operations.models import Operation
from tests.customers.conftest import Api
from tests.customers.maintenance.conftest import linked, run, unheard
from tests.customers.stripe.conftest import StripeSide
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("C7", "C13")]

PATH = "/customers/cleanup-orphaned"


@pytest.fixture
def repairer(db: None) -> Api:
    return Api("operations:read", "operations:write")


@pytest.fixture
def orphans(both: StripeSide) -> tuple[str, str]:
    """A deletion that never went through, and a copy that somebody made there; beside a field that differs."""
    gone, remote_gone = linked(both, name="Gone")
    ada, remote_ada = linked(both, name="Ada")
    customer_delete(customer_id=gone.pk)
    both.events()
    copy = both.sandbox.customer_add(name="Copy", metadata={"zenskar_id": str(ada.pk)})
    both.sandbox.customer_edit(remote_ada, phone="1")
    unheard(both)
    return remote_gone, copy["id"]


def test_it_shows_both_sides_and_changes_nothing_in_a_dry_run(
    both: StripeSide, orphans: tuple[str, str], repairer: Api
) -> None:
    both.sandbox.request_log.clear()

    answer = repairer.post(f"{PATH}?integration_name=stripe&dry_run=true", None)

    result = answer.json()["result"]
    assert answer.status_code == 200
    assert result["differences"] == {"tombstone_mismatch": 1, "duplicate_link": 1}
    assert (result["repairable"], result["proposed"], result["repaired"]) == (1, 1, 0)
    assert both.sandbox.request_log.writes() == []
    assert both.dirty() == []


def test_it_cleans_up_what_is_safe_and_proposes_the_rest(
    both: StripeSide, orphans: tuple[str, str], repairer: Api
) -> None:
    gone, copy = orphans

    answer = repairer.post(PATH, None)
    both.rest()

    assert (answer.json()["result"]["repaired"], answer.json()["result"]["proposed"]) == (1, 1)
    assert gone not in both.sandbox.customers
    assert copy in both.sandbox.customers
    assert Drift.objects.open().get().remote_id == copy


def test_it_takes_part_in_one_that_is_under_way(both: StripeSide, repairer: Api) -> None:
    from customers.reconciling.kinds import ORPHANS
    from operations.long_actions.planning import operation_create
    from operations.long_actions.steering import operation_start

    earlier = operation_create(
        kind="customers.reconcile", filter={"integration": "stripe", "only": ORPHANS}, reason="see", actor="user:ann"
    )
    operation_start(operation_id=earlier.pk, actor="user:ann")

    answer = repairer.post(PATH, None)

    assert answer.json()["id"] == earlier.pk
    assert Operation.objects.count() == 1


def test_the_command_is_a_dry_run_until_it_is_told(both: StripeSide, orphans: tuple[str, str]) -> None:
    gone, _ = orphans

    shown = run("customers_orphans")
    kept = gone in both.sandbox.customers
    applied = run("customers_orphans", "--apply")
    both.rest()

    assert (shown[0], shown[1]["result"]["repairable"], kept) == (3, 1, True)
    assert (applied[0], applied[1]["result"]["repaired"]) == (3, 1)
    assert gone not in both.sandbox.customers


@pytest.mark.feature("C15")
def test_a_person_decides_over_the_api(both: StripeSide, orphans: tuple[str, str], repairer: Api) -> None:
    _, copy = orphans
    run("stripe_reconcile", "--dry-run")
    listed = repairer.get("/api/v1/customers/drift/?kind=duplicate_link").json()["results"]
    deletion = repairer.get("/customers/drift?kind=tombstone_mismatch").json()["results"][0]

    accepted = repairer.post(f"/customers/drift/{listed[0]['id']}/accept", {"reason": "a copy"}, Idempotency_Key="one")
    again = repairer.post(f"/customers/drift/{listed[0]['id']}/accept", {"reason": "a copy"}, Idempotency_Key="one")
    late = repairer.post(f"/customers/drift/{listed[0]['id']}/decline", None)
    declined = repairer.post(f"/api/v1/customers/drift/{deletion['id']}/decline/", {"reason": "kept"})
    run("drift", "list")
    from operations.long_actions.runner import operation_run

    operation_run(accepted.json()["repaired_by"], seconds=60)

    assert (accepted.status_code, again.status_code, late.status_code, declined.status_code) == (202, 202, 409, 200)
    assert again.json() == accepted.json()
    assert late.json()["code"] == "drift_decided"
    assert repairer.get(f"/customers/drift/{listed[0]['id']}").json()["status"] == "repaired"
    assert copy not in both.sandbox.customers
    assert declined.json()["decided_by"].startswith("key:")
    assert repairer.get(accepted["Location"]).json()["state"] == "completed"


@pytest.mark.feature("A16")
def test_it_answers_bad_input_plainly(both: StripeSide, repairer: Api, staff_client: MakeClient) -> None:
    answers = [
        repairer.get("/customers/drift/none"),
        repairer.get("/customers/drift?status=odd"),
        repairer.post("/customers/drift/1/accept", {"why": "x"}),
        repairer.post("/customers/drift/99999999999999999999/decline", None),
        repairer.post(f"{PATH}?dry_run=maybe", None),
        repairer.post(f"{PATH}?integration_name=fax", None),
        staff_client("viewer").post("/customers/drift/1/accept", content_type="application/json"),
    ]

    assert [answer.status_code for answer in answers] == [404, 400, 404, 404, 400, 400, 403]
    assert not Operation.objects.exists()
    assert not SyncRequest.objects.exists()
