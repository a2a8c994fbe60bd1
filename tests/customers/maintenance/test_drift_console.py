"""Differences in the console: by field, with the repair beside it, accepted and declined with buttons."""

from __future__ import annotations

import pytest
from django.urls import reverse

from customers.consistency.health import integration_health
from customers.consistency.validating import consistency_validate
from customers.models import Drift
from operations.long_actions.runner import operation_run
from operations.models import AuditEntry, Operation
from operations.troubles.services import troubles_groups, troubles_page
from operations.troubles.sources import source_named
from tests.customers.maintenance.conftest import linked, run, unheard
from tests.customers.stripe.conftest import StripeSide
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("F3", "H6", "C15")]

LIST = reverse("admin:customers_drift_changelist")


@pytest.fixture
def found(both: StripeSide) -> dict[str, Drift]:
    """A field that differs and a copied id, after a dry run."""
    ada, remote_id = linked(both, name="Ada", phone="1")
    both.sandbox.customer_edit(remote_id, phone="2<b>")
    both.sandbox.customer_add(name="Copy", metadata={"zenskar_id": str(ada.pk)})
    unheard(both)
    run("stripe_reconcile", "--dry-run")
    return {drift.kind: drift for drift in Drift.objects.all()}


def do(drift: Drift, verb: str) -> str:
    return reverse("admin:customers_drift_do", args=[drift.pk, verb])


def test_it_shows_what_differs_and_the_repair_beside_it(found: dict[str, Drift], staff_client: MakeClient) -> None:
    operator = staff_client("operator")

    listed = operator.get(f"{LIST}?status__exact=open").content.decode()
    page = operator.get(reverse("admin:customers_drift_change", args=[found["field_difference"].pk])).content.decode()

    assert "phone: 1 ≠ 2&lt;b&gt;" in listed
    assert "Synchronise it" in listed
    assert "2&lt;b&gt;" in page


@pytest.mark.feature("A16")
def test_it_masks_values_for_those_who_may_not_read_them(found: dict[str, Drift], staff_client: MakeClient) -> None:
    viewer = staff_client("viewer")

    listed = viewer.get(f"{LIST}?status__exact=open").content.decode()
    page = viewer.get(reverse("admin:customers_drift_change", args=[found["field_difference"].pk])).content.decode()

    assert "phone: ••• ≠ •••" in listed
    assert "2&lt;b&gt;" not in listed + page
    assert "masked" in page
    assert "Accept" not in page
    assert "Compare and mend" not in listed


def test_it_offers_the_comparison_to_whoever_may(found: dict[str, Drift], staff_client: MakeClient) -> None:
    operator, viewer = staff_client("operator"), staff_client("viewer")
    address = reverse("admin:customers_drift_compare")

    listed = operator.get(LIST).content.decode()
    page = operator.get(address).content.decode()
    begun = operator.post(address, {"integration": "stripe", "way": "mend", "reason": "see"})
    again = operator.post(address, {"integration": "stripe", "way": "mend"}, follow=True).content.decode()
    odd = operator.post(address, {"integration": "stripe", "way": "odd"})
    taken = operator.post(address, {"integration": "stripe", "way": "import"})

    assert address in listed
    assert "Compare and mend" in page
    assert "<td>1</td><td>0</td>" in page
    imports = Operation.objects.get(kind="customers.import")
    assert taken.headers["Location"] == reverse("admin:operations_operation_change", args=[imports.pk])
    assert imports.state == "running"
    operation = Operation.objects.exclude(filter__dry_run=True).get(kind="customers.reconcile")
    assert begun.headers["Location"] == reverse("admin:operations_operation_change", args=[operation.pk])
    assert (operation.state, operation.reason) == ("running", "see")
    assert "under way already" in again
    assert odd.status_code == 404
    assert [viewer.get(address).status_code, viewer.post(address).status_code] == [403, 403]


def test_a_button_accepts_and_an_operation_repairs(
    both: StripeSide, found: dict[str, Drift], staff_client: MakeClient
) -> None:
    drift = found["duplicate_link"]

    answer = staff_client("operator").post(do(drift, "accept"), {"reason": "a copy"}, follow=True)
    operation = Operation.objects.get(kind="customers.repair")
    operation_run(operation.pk, seconds=60)

    drift.refresh_from_db()
    assert f"operation {operation.pk}" in answer.content.decode()
    assert (drift.status, drift.decided_by) == ("repaired", "user:operator")
    assert drift.remote_id not in both.sandbox.customers
    entry = AuditEntry.objects.get(action="drift.accepted")
    assert (entry.target, entry.detail) == (f"drift:{drift.pk}", {"reason": "a copy"})


def test_a_button_declines(found: dict[str, Drift], staff_client: MakeClient) -> None:
    drift = found["duplicate_link"]

    staff_client("operator").post(do(drift, "decline"), {"reason": "known"})

    drift.refresh_from_db()
    assert (drift.status, drift.outcome) == ("declined", "known")


def test_several_are_decided_at_once(found: dict[str, Drift], staff_client: MakeClient) -> None:
    operator = staff_client("operator")
    ids = [drift.pk for drift in found.values()]

    operator.post(LIST, {"action": "accept", "_selected_action": ids})
    again = operator.post(LIST, {"action": "decline", "_selected_action": ids}, follow=True)

    assert set(Drift.objects.values_list("status", flat=True)) == {"accepted"}
    assert Operation.objects.get(kind="customers.repair").filter == {"ids": sorted(ids)}
    assert b"Nothing was done" in again.content


@pytest.mark.feature("A16", "E9")
def test_buttons_are_post_and_for_those_who_may(found: dict[str, Drift], staff_client: MakeClient) -> None:
    drift = found["duplicate_link"]
    viewer, operator = staff_client("viewer"), staff_client("operator")

    answers = [
        viewer.post(do(drift, "accept")),
        viewer.post(do(drift, "decline")),
        operator.get(do(drift, "accept")),
        operator.post(reverse("admin:customers_drift_do", args=[drift.pk, "explode"])),
        operator.post(reverse("admin:customers_drift_do", args=[2**63, "accept"])),
        operator.post(reverse("admin:customers_drift_do", args=[999_999_999, "accept"])),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 405, 404, 404, 404]
    assert set(Drift.objects.values_list("status", flat=True)) == {"open"}


@pytest.mark.feature("A12")
def test_proposals_are_among_the_troubles(found: dict[str, Drift]) -> None:
    source = source_named("proposals")
    assert source is not None

    groups = troubles_groups([source])
    rows, _ = troubles_page([source], fingerprint=groups[0].group.fingerprint, place=("", ""), limit=10)

    assert dict(source.counts()) == {"open": 1}
    assert [group.group.code for group in groups] == ["duplicate_link"]
    assert len(rows) == 1
    assert rows[0][1].url.startswith(LIST)
    drift = found["field_difference"]
    assert source.retry(ids=[str(drift.pk)], actor="user:ann", reason="see") == [str(drift.pk)]


@pytest.mark.feature("C15", "H6")
def test_what_a_dry_run_finds_safe_by_rule_is_left_to_nobody(found: dict[str, Drift], staff_client: MakeClient) -> None:
    operator = staff_client("operator")

    asked = operator.get(f"{LIST}?waits=person").content.decode()
    by_rule = operator.get(f"{LIST}?waits=rule").content.decode()
    home = operator.get(reverse("admin:index")).content.decode()
    listed, documents = run("drift", "list")
    run("drift", "decline", str(found["duplicate_link"].pk))
    left, _ = run("drift", "list")

    addresses = {kind: reverse("admin:customers_drift_change", args=[drift.pk]) for kind, drift in found.items()}
    assert [addresses["duplicate_link"] in page for page in (asked, by_rule)] == [True, False]
    assert [addresses["field_difference"] in page for page in (asked, by_rule)] == [False, True]
    assert f"{LIST}?waits=person" in home
    assert (listed, len(documents), left) == (1, 2, 0)
    assert integration_health(name="stripe")["open_proposals"] == 0
    counts = {one["name"]: one["count"] for one in consistency_validate(integration="stripe")["checks"]}
    assert counts["proposal_open"] == 0
