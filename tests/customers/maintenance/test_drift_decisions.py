"""Proposals that a person accepts or declines."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse

from customers.models import Conflict, Customer, Drift, SyncState
from customers.reconciling.decisions import DriftDecided, DriftUnrepairable, drifts_accept, drifts_decline
from customers.services import customer_create, customer_delete
from operations.long_actions.runner import operation_run
from operations.models import AuditEntry, OperationItem
from tests.customers.conftest import Api
from tests.customers.maintenance.conftest import linked, run, unheard
from tests.customers.stripe.conftest import StripeSide
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("C15", "C7", "H6")]


def proposal(side: StripeSide, *words: str) -> Drift:
    run("stripe_reconcile", *words)
    return Drift.objects.open().latest("pk")


def accept(drift: Drift) -> Drift:
    done = drifts_accept(ids=[drift.pk], actor="user:ann", reason="seen")
    operation_run(done.operation.pk, seconds=60)
    drift.refresh_from_db()
    return drift


def same_email(side: StripeSide) -> tuple[Customer, Any]:
    """A record there, and a customer here with its e-mail that was never created there."""
    there = side.sandbox.customer_add(name="Ada", email="ada@example.com", phone="1")
    unheard(side)
    here = customer_create(name="Ada", email="ada@example.com", metadata={"plan": "gold"})
    side.events()
    return here, there


@pytest.mark.feature("C4")
def test_accepting_a_link_makes_one_of_both(both: StripeSide) -> None:
    here, there = same_email(both)
    drift = proposal(both, "--only", "unlinked", "--only", "missing_here")

    drift = accept(drift)
    both.rest()

    here.refresh_from_db()
    assert (drift.kind, drift.status, drift.decided_by) == ("unlinked", "repaired", "user:ann")
    assert (here.phone, both.there(here)["metadata"]["plan"]) == ("1", "gold")
    assert both.state(here).remote_id == there["id"]
    assert len(both.sandbox.customers) == SyncState.objects.count() == 1
    assert [e.action for e in AuditEntry.objects.filter(target=f"drift:{drift.pk}")] == ["drift.accepted"]


def test_accepting_creates_there_what_stripe_never_heard_of(both: StripeSide) -> None:
    ada, _ = linked(both, name="Ada")
    SyncState.objects.filter(customer=ada).update(remote_id="cus_of_another_account")

    drift = accept(proposal(both, "--only", "missing_there"))
    both.rest()

    assert drift.status == "repaired"
    assert both.there(ada)["name"] == "Ada"
    assert both.state(ada).status == "in_sync"


def test_accepting_deletes_a_spare_there(both: StripeSide) -> None:
    ada, remote_id = linked(both, name="Ada")
    copy = both.sandbox.customer_add(name="Copy", metadata={"zenskar_id": str(ada.pk)})
    unheard(both)

    drift = accept(proposal(both))
    both.rest()

    assert (drift.kind, drift.status) == ("duplicate_link", "repaired")
    assert set(both.sandbox.customers) == {remote_id}
    assert copy["id"] not in both.sandbox.customers


def test_it_keeps_a_spare_that_got_a_subscription_meanwhile(both: StripeSide) -> None:
    from customers.stripe.client import stripe_client
    from customers.stripe.conf import stripe_settings

    ada, _ = linked(both, name="Ada")
    copy = both.sandbox.customer_add(name="Copy", metadata={"zenskar_id": str(ada.pk)})
    unheard(both)
    drift = proposal(both)
    client = stripe_client(stripe_settings())
    client.v1.subscriptions.create({"customer": copy["id"], "items": [{"price": "price_gold"}]})

    drift = accept(drift)

    assert drift.status == "open"
    assert "subscription" in drift.outcome
    assert copy["id"] in both.sandbox.customers


def test_one_that_is_safe_by_rule_waits_for_a_person_when_its_repair_fails(both: StripeSide) -> None:
    _, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    unheard(both)
    drift = proposal(both, "--dry-run")
    assert drift.safe
    both.sandbox.faults.add(route="GET /v1/customers/*", status=400)

    drift = accept(drift)

    assert (drift.status, bool(drift.outcome)) == ("open", True)
    assert list(Drift.objects.proposals()) == [drift]
    assert run("drift", "list")[0] == 1


def test_it_repairs_nothing_that_is_another_thing_by_now(both: StripeSide) -> None:
    here, there = same_email(both)
    drift = proposal(both, "--only", "unlinked", "--only", "missing_here")
    both.sandbox.customer_remove(there["id"])
    unheard(both)

    drift = accept(drift)

    assert drift.status == "gone"
    assert not SyncState.objects.filter(customer=here, remote_id=there["id"]).exists()
    assert set(OperationItem.objects.filter(key=str(drift.pk)).values_list("state", flat=True)) == {"skipped"}


def test_a_declined_one_is_not_asked_about_again(both: StripeSide) -> None:
    ada, _ = linked(both, name="Ada")
    copy = both.sandbox.customer_add(name="Copy", metadata={"zenskar_id": str(ada.pk)})
    unheard(both)
    drift = proposal(both)

    drifts_decline(ids=[drift.pk], actor="user:ann", reason="a test record")
    status, document = run("stripe_reconcile")

    drift.refresh_from_db()
    assert (status, document["result"]["proposed"]) == (0, 0)
    assert (drift.status, drift.outcome) == ("declined", "a test record")
    assert copy["id"] in both.sandbox.customers


def test_it_is_decided_once(both: StripeSide) -> None:
    ada, _ = linked(both, name="Ada")
    both.sandbox.customer_add(name="Copy", metadata={"zenskar_id": str(ada.pk)})
    unheard(both)
    drift = proposal(both)
    drifts_decline(ids=[drift.pk], actor="user:ann")

    with pytest.raises(DriftDecided):
        drifts_accept(ids=[drift.pk], actor="user:bob")
    with pytest.raises(DriftDecided):
        drifts_decline(ids=[drift.pk], actor="user:bob")


def test_it_says_when_nothing_can_be_done_from_here(both: StripeSide) -> None:
    linked(both, name="Ada", email="ada@example.com")
    both.sandbox.customer_add(email="ada@example.com")
    unheard(both)
    run("stripe_import")
    drift = Drift.objects.open().get()

    with pytest.raises(DriftUnrepairable):
        drifts_accept(ids=[drift.pk], actor="user:ann")


def test_the_command_lists_accepts_and_declines(both: StripeSide) -> None:
    people = [linked(both, name=name)[0] for name in ("Ada", "Bob")]
    for customer in people:
        both.sandbox.customer_add(metadata={"zenskar_id": str(customer.pk)})
    unheard(both)
    run("stripe_reconcile")

    listed, documents = run("drift", "list")
    accepted = run("drift", "accept", str(documents[0]["id"]), "--reason", "copies")
    declined = run("drift", "decline", str(documents[1]["id"]))
    empty, _ = run("drift", "list")

    assert (listed, len(documents), empty) == (1, 2, 0)
    assert (accepted[0], accepted[1]["repaired"]) == (0, 1)
    assert declined == (0, {"declined": 1, "conflicts": []})
    with pytest.raises(CommandError, match="no such difference"):
        call_command("drift", "accept", "999999999")


@pytest.fixture
def taken(both: StripeSide) -> Drift:
    """A record whose e-mail a linked customer has: a difference that only a person can settle, and its conflict."""
    linked(both, name="Ada", email="ada@example.com")
    both.sandbox.customer_add(email="ada@example.com")
    unheard(both)
    run("stripe_import")
    return Drift.objects.open().get()


def test_the_command_says_which_conflict_stays_open_and_what_settles_it(taken: Drift) -> None:
    conflict = Conflict.objects.open().get()
    written = io.StringIO()

    call_command("drift", "decline", str(taken.pk), stdout=written)

    conflict.refresh_from_db()
    first, second = written.getvalue().splitlines()
    assert (conflict.status, first) == ("open", "1 difference left as it is.")
    assert second.startswith(f"Conflict {conflict.pk} (email_taken) stays open. A customer here has the e-mail")
    assert "ada@" not in written.getvalue()


@pytest.mark.feature("C13")
def test_the_api_says_which_conflict_stays_open(taken: Drift) -> None:
    conflict = Conflict.objects.open().get()

    answer = Api("operations:read", "operations:write").post(
        f"/api/v1/customers/drift/{taken.pk}/decline/", {"reason": "known"}
    )

    assert answer.status_code == 200
    left = answer.json()["conflicts"]
    assert [(one["id"], one["kind"], one["remote_id"]) for one in left] == [
        (conflict.pk, "email_taken", taken.remote_id)
    ]
    assert "merge or delete the spare record" in left[0]["advice"].lower()


@pytest.mark.feature("F3")
def test_the_console_says_which_conflict_stays_open(taken: Drift, staff_client: MakeClient) -> None:
    conflict = Conflict.objects.open().get()
    address = reverse("admin:customers_drift_do", args=[taken.pk, "decline"])

    page = staff_client("operator").post(address, follow=True).content.decode()

    assert "1 conflict about the same stays open" in page
    assert reverse("admin:customers_conflict_change", args=[conflict.pk]) in page


def test_a_deletion_here_that_is_young_is_done_when_accepted(both: StripeSide, settings: Any) -> None:
    settings.RECONCILE_MIN_AGE = 86_400
    ada, remote_id = linked(both, name="Ada")
    customer_delete(customer_id=ada.pk)
    both.events()

    drift = accept(proposal(both))
    both.rest()

    assert drift.status == "repaired"
    assert remote_id not in both.sandbox.customers
