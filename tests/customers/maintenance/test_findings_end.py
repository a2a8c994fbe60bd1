"""How what a comparison found ends: mended, changed back, imported, or asked about elsewhere; and never twice."""

from __future__ import annotations

import pytest

from customers.consistency.validating import last_comparison
from customers.models import Conflict, Drift, ReconcileRun, SyncState
from customers.reconciling.drifts import drift_record
from customers.reconciling.examining import record_examine
from customers.services import customer_update
from customers.stripe.integration import StripeIntegration
from operations.models import Operation
from tests.customers.maintenance.conftest import linked, reconcile, run, unheard
from tests.customers.stripe.conftest import StripeSide

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("G5", "H6", "C4")]


def test_what_it_found_ends_with_the_synchronisation_that_mends_it(both: StripeSide) -> None:
    customer, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    unheard(both)
    reconcile("--dry-run")
    assert Drift.objects.open().count() == 1

    SyncState.objects.filter(customer=customer).look_again()
    both.rest()

    drift = Drift.objects.get()
    assert (drift.status, drift.outcome) == ("gone", "Both sides agree since a synchronisation.")


def test_what_it_found_ends_when_it_is_changed_back_there(both: StripeSide) -> None:
    _, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    unheard(both)
    reconcile("--dry-run")

    both.sandbox.customer_edit(remote_id, name="Ada")
    both.rest()

    assert Drift.objects.get().status == "gone"


def test_what_it_found_is_not_asked_twice_when_it_is_a_conflict(both: StripeSide) -> None:
    customer, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    unheard(both)
    reconcile("--dry-run")

    customer_update(customer_id=customer.pk, changes={"name": "Ada King"})
    both.rest()

    assert Conflict.objects.open().get().field == "name"
    assert Drift.objects.get().outcome == "It is a conflict by now, and decided there."


def test_it_writes_nothing_down_of_a_state_that_moved_since(both: StripeSide) -> None:
    customer, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    unheard(both)
    integration = StripeIntegration()
    finding = record_examine(integration, remote_id, call=lambda function: function())
    assert finding is not None

    SyncState.objects.filter(customer=customer).look_again()
    both.rest()

    assert drift_record(integration, finding, operation_id=1) is None
    assert not Drift.objects.exists()


def test_a_missing_one_ends_when_it_is_imported(both: StripeSide) -> None:
    both.sandbox.customer_add(name="Eve")
    unheard(both)
    reconcile("--dry-run")

    run("stripe_import")

    assert Drift.objects.get().outcome == "It was imported."


def test_what_it_proposed_ends_when_both_sides_agree(both: StripeSide) -> None:
    _, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    unheard(both)
    reconcile("--dry-run")
    both.sandbox.customer_edit(remote_id, name="Ada")
    unheard(both)

    status, result = reconcile("--dry-run")

    assert (status, result["differences"]) == (0, {})
    assert Drift.objects.get().status == "gone"


def test_what_it_proposed_stays_when_looking_at_it_again_failed(both: StripeSide) -> None:
    _, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    unheard(both)
    reconcile("--dry-run")
    both.sandbox.faults.add(route="GET /v1/customers/*", status=400)

    status, result = reconcile("--dry-run")

    assert (status, result["complete"]) == (1, True)
    assert Drift.objects.get().status == "open"


@pytest.mark.feature("C13")
def test_what_compares_a_part_alone_is_no_comparison_of_all(both: StripeSide) -> None:
    linked(both, name="Ada")

    _, imported = run("stripe_import")
    _, part = reconcile("--only", "missing_here")
    before = last_comparison("stripe")
    reconcile()
    after = last_comparison("stripe")

    assert (imported["result"]["complete"], part["complete"], before) == (True, True, None)
    assert after is not None
    assert after["operation"] == Operation.objects.latest("pk").pk


def test_finding_it_again_is_one_proposal(both: StripeSide) -> None:
    _, remote_id = linked(both, name="Ada")
    both.sandbox.customer_edit(remote_id, name="Countess")
    unheard(both)

    reconcile("--dry-run")
    reconcile("--dry-run")

    drift = Drift.objects.get()
    assert drift.operation_id == Operation.objects.latest("pk").pk
    assert ReconcileRun.objects.count() == 2
