"""What an erasure leaves behind easily: differences, kept answers, former records, and people who never came to be."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.urls import reverse

from customers.erasing.messages import RECORDS_SQL
from customers.erasing.services import customer_erase
from customers.errors import EmailTaken
from customers.models import Customer, Drift, Saga, SyncRequest, SyncState, Webhook
from customers.reconciling.decisions import drifts_accept
from customers.sagas import ending, running
from customers.sagas.run import Run
from customers.services import customer_create, customer_update
from operations.long_actions.runner import operation_run
from operations.models import IdempotencyKey
from outbox.relay import relay_until_idle
from projections.runner import projections_run_once
from tests.customers.conftest import Api
from tests.customers.erasing.searching import places_of
from tests.customers.maintenance.conftest import both, linked, run, unheard
from tests.customers.sagas.conftest import PROTECTED
from tests.customers.stripe.conftest import StripeSide
from tests.operations.conftest import MakeClient, staff_client

__all__ = ["both", "staff_client"]
pytestmark = [pytest.mark.feature("H8"), pytest.mark.django_db(transaction=True)]

URL = "/api/v1/customers/"
# Well-formed here, refused there.
REFUSED = "zuzanna@quimby.x"


def differing(side: StripeSide) -> tuple[Customer, Drift]:
    """A customer whose phone differs, after a dry run."""
    customer, remote_id = linked(side, name="Zuzanna Quimby", phone="+48 555 0199")
    side.sandbox.customer_edit(remote_id, phone="+48 555 0200")
    unheard(side)
    run("stripe_reconcile", "--dry-run")
    return customer, Drift.objects.get()


def settle(side: StripeSide, customer: Customer) -> None:
    """Erase, and let everybody hear of it."""
    customer_erase(customer_id=customer.pk, actor="tests")
    for _ in range(2):
        relay_until_idle()
        side.rest()
        projections_run_once()
    customer_erase(customer_id=customer.pk, actor="tests")


def run_as_text() -> None:
    out = StringIO()
    call_command("drift", "list", stdout=out)
    assert "phone: here null, there null" in out.getvalue()


@pytest.mark.feature("C15", "F3")
@pytest.mark.parametrize("names_alone", [False, True])
def test_differences_of_somebody_erased_are_shown_everywhere(
    both: StripeSide, staff_client: MakeClient, names_alone: bool
) -> None:
    customer, drift = differing(both)
    customer_erase(customer_id=customer.pk, actor="tests")
    if names_alone:
        # As earlier erasures left them.
        Drift.objects.update(fields=[{"field": "phone"}])
    viewer, key = staff_client("viewer"), Api("operations:read", "operations:write")

    listed = viewer.get(reverse("admin:customers_drift_changelist"))
    page = viewer.get(reverse("admin:customers_drift_change", args=[drift.pk]))
    documents = [key.get("/customers/drift").json()["results"][0], key.get(f"/customers/drift/{drift.pk}").json()]
    status, printed = run("drift", "list")
    run_as_text()

    assert (listed.status_code, page.status_code) == (200, 200)
    assert "phone" in listed.content.decode()
    empty = [{"field": "phone", "base": None, "ours": None, "theirs": None}]
    assert [one["fields"] for one in (*documents, printed[0])] == [empty] * 3
    assert status == 0
    if not names_alone:
        drift.refresh_from_db()
        assert drift.fields == empty


@pytest.mark.feature("A16", "C15")
def test_values_of_differences_are_masked_for_those_who_may_not_read_them(both: StripeSide) -> None:
    _, drift = differing(both)
    reader, repairer = Api("operations:read"), Api("operations:read", "operations:write")

    masked = [reader.get("/customers/drift"), reader.get(f"/customers/drift/{drift.pk}")]
    shown = repairer.get(f"/customers/drift/{drift.pk}").json()["fields"]

    assert all(answer.status_code == 200 and b"555" not in answer.content for answer in masked)
    assert masked[1].json()["fields"] == [{"field": "phone", "base": "•••", "ours": "•••", "theirs": "•••"}]
    assert (shown[0]["ours"], shown[0]["theirs"]) == ("+48 555 0199", "+48 555 0200")


@pytest.mark.parametrize("verb", ["accept", "decline"])
@pytest.mark.parametrize("linked_later", [False, True])
def test_answers_to_decisions_go_with_it(both: StripeSide, verb: str, linked_later: bool) -> None:
    customer, drift = differing(both)
    if linked_later:
        Drift.objects.update(customer=None)
    key = Api("operations:read", "operations:write")
    answer = key.post(f"/customers/drift/{drift.pk}/{verb}", None, Idempotency_Key="k")
    kept = bytes(IdempotencyKey.objects.get().body)

    customer_erase(customer_id=customer.pk, actor="tests")
    again = key.post(f"/customers/drift/{drift.pk}/{verb}", None, Idempotency_Key="k")

    assert answer.status_code == (202 if verb == "accept" else 200)
    assert b"+48 555 0199" in kept
    assert bytes(IdempotencyKey.objects.get().body) == b""
    assert (again.status_code, again.json()["code"]) == (410, "answer_erased")


@pytest.mark.feature("C11")
def test_the_answer_to_a_refused_change_goes_with_it(both: StripeSide) -> None:
    customer, _ = linked(both, name="Ada", email="ada@example.com")
    answer = Api("customers:write").patch(f"{URL}{customer.pk}/", {"email": REFUSED}, Idempotency_Key="k", **PROTECTED)
    before, kept = places_of([REFUSED]), bytes(IdempotencyKey.objects.get().body)

    settle(both, customer)

    assert (answer.status_code, answer.json()["code"]) == (502, "integration_refused")
    # The refusal quotes nobody from the beginning; what was sent stands in the request alone.
    assert before == ["customers_syncrequest.body", "customers_syncrequest.fields"]
    assert kept == answer.content
    assert bytes(IdempotencyKey.objects.get().body) == b""
    assert places_of([REFUSED]) == []


@pytest.mark.feature("C11")
def test_nothing_is_kept_of_somebody_whom_an_integration_refused(both: StripeSide) -> None:
    api = Api("customers:write")

    answer = api.post(URL, {"name": "Zuzanna Quimby", "email": REFUSED}, Idempotency_Key="k", **PROTECTED)
    again = api.post(URL, {"name": "Zuzanna Quimby", "email": REFUSED}, Idempotency_Key="k", **PROTECTED)

    assert (answer.status_code, answer.json()["failed"]["code"]) == (502, "email_invalid")
    assert answer.json()["failed"]["message"] == "Invalid email address: •••"
    assert answer.json()["detail"].endswith("Invalid email address: •••")
    assert again.content == answer.content
    assert SyncRequest.objects.get().error_message == "Invalid email address: •••"
    assert places_of(["quimby"]) == []


@pytest.mark.feature("C11")
def test_what_is_kept_of_a_refusal_stays_readable_whatever_the_person_is_called(both: StripeSide) -> None:
    api = Api("customers:write")

    answer = api.post(URL, {"name": "Stripe Refused", "email": REFUSED}, **PROTECTED)

    assert answer.json()["detail"] == "stripe refused the change: Invalid email address: •••"
    assert places_of([REFUSED]) == []


@pytest.mark.feature("C11")
@pytest.mark.parametrize("heard", ["before", "after"])
def test_nothing_is_kept_of_somebody_whose_create_was_undone(
    both: StripeSide, monkeypatch: pytest.MonkeyPatch, heard: str
) -> None:
    def refuse(**_: object) -> None:
        raise EmailTaken

    def end(run: Run) -> ending.Ended:
        if heard == "before":
            both.hear()
        return ending.saga_undone(run)

    monkeypatch.setattr(ending, "create_here", refuse)
    monkeypatch.setattr(running, "saga_undone", end)

    answer = Api("customers:write").post(
        URL, {"name": "Zuzanna Quimby", "email": "zuzanna@quimby.example"}, Idempotency_Key="k", **PROTECTED
    )
    both.rest()

    assert answer.status_code == 409
    assert Saga.objects.get().status == "undone"
    assert list(Webhook.objects.order_by("id").values_list("type", flat=True)) == [
        "customer.created",
        "customer.deleted",
    ]
    assert both.sandbox.customers == {}
    assert not Customer.objects.exists()
    assert places_of(["quimby"]) == []


@pytest.mark.feature("C7")
@pytest.mark.parametrize("known_by", ["all", "differences", "requests", "metadata"])
def test_messages_of_a_former_record_are_emptied_too(both: StripeSide, known_by: str) -> None:
    customer, former = linked(both, name="Zuzanna Quimby", email="zuzanna@quimby.example")
    other, remote_of_other = linked(both, name="Somebody Else")
    customer_update(customer_id=customer.pk, changes={"phone": "+48 555 0199"})
    both.rest()
    both.sandbox.customers.pop(former)
    SyncState.objects.filter(customer=customer).update(remote_id="cus_former")
    Webhook.objects.filter(remote_id=former).update(remote_id="cus_former")
    run("stripe_reconcile", "--only", "missing_there")
    drift = Drift.objects.open().get()
    done = drifts_accept(ids=[drift.pk], actor="user:ann", reason="gone there")
    operation_run(done.operation.pk, seconds=60)
    both.rest()
    if known_by in ("requests", "metadata"):
        Drift.objects.all().delete()
    if known_by in ("differences", "metadata"):
        Webhook.objects.update(caused_by=None)
    if known_by in ("differences", "requests"):
        for webhook in Webhook.objects.filter(remote_id="cus_former"):
            del webhook.payload["data"]["object"]["metadata"]
            webhook.save()
    assert Webhook.objects.filter(remote_id="cus_former").count() >= 2

    settle(both, customer)

    assert both.state(customer).remote_id != "cus_former"
    assert places_of(["quimby", "555 0199"]) == []
    assert all("data" in one.payload for one in Webhook.objects.filter(remote_id=remote_of_other))
    assert Customer.objects.get(pk=other.pk).name == "Somebody Else"


def test_messages_about_somebody_else_who_carries_a_copied_id_are_theirs(both: StripeSide) -> None:
    customer, _ = linked(both, name="Zuzanna Quimby")
    other, remote_id = linked(both, name="Somebody Else")
    both.sandbox.customer_edit(remote_id, metadata={"zenskar_id": str(customer.pk)}, phone="1")
    both.hear()

    customer_erase(customer_id=customer.pk, actor="tests")

    assert Webhook.objects.filter(remote_id=remote_id, payload__has_key="data").exists()
    assert both.state(other).remote_id == remote_id


@pytest.mark.feature("G1")
def test_former_records_are_found_by_indexes(db: None) -> None:
    customer = customer_create(name="Ada")

    with connection.cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute(f"EXPLAIN {RECORDS_SQL}", {"customer": customer.pk, "text": str(customer.pk)})
        plan = "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute("RESET enable_seqscan")

    assert "webhook_by_reference" in plan
    assert "webhook_by_cause" in plan
    assert "Seq Scan" not in plan
