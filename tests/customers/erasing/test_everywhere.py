"""A person who was everywhere in the database, and is nowhere after the erasure."""

from __future__ import annotations

import orjson
import pytest
from django.db import connection

from customers.erasing.services import customer_erase, erasures_sweep_once
from customers.events import customer_payload
from customers.models import Customer, Drift, Erasure
from customers.services import customer_update
from operations.audit import audit_record
from operations.models import AuditEntry, Operation, TroubleNote
from outbox.deciding import deliveries_retry, deliveries_skip
from outbox.errors import ErrorClass
from outbox.models import Delivery, ParkedMessage, StoredEvent
from outbox.relay import relay_until_idle
from outbox.replacing import delivery_replace
from outbox.subscribers import Failure as Refusal
from outbox.verifying import outbox_verify
from projections.comparing import rebuild_compare
from projections.models import Build, Failure
from projections.rebuilding import rebuild_start
from projections.runner import projections_run_once
from projections.verifying import projection_verify
from tests.customers.conftest import Api
from tests.customers.erasing.searching import places_of
from tests.customers.stripe.conftest import StripeSide
from tests.outbox.collecting import Collector

pytestmark = [pytest.mark.feature("H8"), pytest.mark.django_db(transaction=True)]

NAME, EMAIL, PHONE = "Zuzanna Quimby", "zuzanna.quimby@example.com", "+48 555 0199"
STREET, PLAN, FORMER = "Ulica Dluga 77", "veilchenblau", "zuzka@example.net"
WORDS = (NAME, EMAIL, PHONE, STREET, PLAN, FORMER, "quimby")
MODELS = ("customer_directory", "customer_activity")


def all_catch_up(stripe_side: StripeSide) -> None:
    for _ in range(2):
        relay_until_idle()
        stripe_side.rest()
        projections_run_once()


def all_verify() -> None:
    assert [finding.check for finding in outbox_verify(apply=False, actor="tests", whole=True) if finding.is_open] == []
    for name in MODELS:
        assert [str(one) for one in projection_verify(name=name).differences] == []


def everywhere(api: Api, stripe_side: StripeSide, collector: Collector) -> Customer:
    """A person whose data lies wherever it can: what failed, what was edited, what people wrote, what came back."""

    def refuse(event: object) -> Refusal | None:
        text = f"the address {EMAIL} of {NAME} was refused"
        return Refusal(event, ErrorClass.PERMANENT, "refused", text, text, text)  # type: ignore[arg-type]

    collector.refuse = refuse
    created = api.post(
        "/api/v1/customers/",
        {
            "name": NAME,
            "email": FORMER,
            "phone": PHONE,
            "address": {"line1": STREET, "country": "PL"},
            "metadata": {"plan": PLAN},
        },
        Idempotency_Key="first",
    )
    assert created.status_code == 201, created.content
    customer = Customer.objects.get()
    all_catch_up(stripe_side)
    api.patch(f"/api/v1/customers/{customer.pk}", {"email": EMAIL}, Idempotency_Key="second")
    all_catch_up(stripe_side)
    # Both sides change the name, which no rule decides.
    customer_update(customer_id=customer.pk, changes={"name": "Zuzanna Q. Quimby"})
    stripe_side.sandbox.customer_edit(stripe_side.state(customer).remote_id or "", name="Zuza Quimby")
    all_catch_up(stripe_side)
    (first,) = Delivery.objects.filter(state="dead")
    payload = {**first.envelope["payload"], "email": EMAIL}
    delivery_replace(delivery_id=first.pk, payload=payload, actor="tests", reason=f"{NAME} has a new address")
    relay_until_idle()
    (second,) = Delivery.objects.filter(state="dead")
    deliveries_skip(ids=[second.pk], actor="tests", reason=f"{EMAIL} asked for it")
    relay_until_idle()
    build = Build.objects.get(projection=MODELS[0])
    event = StoredEvent.objects.filter(aggregate_id=str(customer.pk)).order_by("sequence")[0]
    resolved = {"state": "resolved", "strategy": "skip", "resolution": f"{NAME} knows"}
    failure = Failure.objects.create(
        build=Build.objects.get(projection=MODELS[1]),
        projection=MODELS[1],
        event_id=0,
        position=0,
        event_type=event.type,
        topic=event.topic,
        aggregate_type=event.aggregate_type,
        aggregate_id=event.aggregate_id,
        sequence=1,
        error_class="poison",
        code="DataError",
        message=f"Key (email)=({EMAIL})",
        traceback=f"Key (email)=({EMAIL})",
        fingerprint="f",
        attempts=1,
        **resolved,
    )
    failure.timeline.create(number=1, error_class="poison", code="DataError", message=f"Key (email)=({EMAIL})")
    ParkedMessage.objects.create(
        consumer_group="shop",
        event_id=str(event.uid),
        topic="zenskar.customers",
        partition=0,
        offset=1,
        timestamp=0,
        key=event.aggregate_id.encode(),
        value=orjson.dumps(customer_payload(customer, [])),
        headers=[["ce_id", "eA=="], ["x-name", "eA=="]],
        aggregate_type="customer",
        aggregate_id=event.aggregate_id,
        state="dead",
        message=f"no room for {NAME}",
        traceback=f"no room for {NAME}",
    )
    Drift.objects.create(
        customer=customer,
        integration="stripe",
        livemode=False,
        kind="field_difference",
        subject=f"customer:{customer.pk}",
        fields=[{"field": "email", "ours": EMAIL, "theirs": FORMER}],
        facts_hash="f",
        detail=f"{EMAIL} here",
        operation_id=1,
    )
    TroubleNote.objects.create(source="s", fingerprint="f", note=f"call {PHONE}", updated_by="tests")
    operation = Operation.objects.create(kind="k", filter={}, reason=f"for {EMAIL.upper()}", actor="tests", eligible=0)
    operation.rows.create(key="1", state="failed", message=f"{NAME} was refused")
    audit_record(actor="tests", action="operation.planned", target=f"operation:{operation.pk}", detail={"r": [EMAIL]})
    audit_record(actor="tests", action="x.y", target=f"customer:{customer.pk}", detail={"why": f"{NAME} wrote"})
    assert build.state == "live"
    return customer


def test_it_leaves_nothing_of_a_person_in_any_column(api: Api, stripe_side: StripeSide, collector: Collector) -> None:
    customer = everywhere(api, stripe_side, collector)
    other = Customer.objects.create(name="Somebody Else", email="else@example.com")
    before = set(places_of(WORDS))
    collector.refuse = lambda event: None

    customer_erase(customer_id=customer.pk, actor="user:officer")
    at_once = set(places_of(WORDS))
    all_catch_up(stripe_side)
    deliveries_retry(ids=list(Delivery.objects.filter(state="dead").values_list("pk", flat=True)), actor="tests")
    all_catch_up(stripe_side)
    Erasure.objects.update(next_pass_at="2020-01-01T00:00:00Z")
    erasures_sweep_once()

    tables = {place.partition(".")[0].rstrip("0123456789_") for place in before}
    assert {
        "customers_customer",
        "customers_syncstate",
        "customers_syncrequest",
        "customers_conflict",
        "customers_webhook",
        "customers_directory",
        "customers_drift",
        "operations_auditentry",
        "operations_idempotency",
        "operations_item",
        "operations_operation",
        "operations_troublenote",
        "outbox_attempt",
        "outbox_delivery",
        "outbox_inbox_parked",
        "outbox_replacement",
        "projections_attempt",
        "projections_failure",
    } <= tables
    assert {place.partition(".")[0].rstrip("0123456789_") for place in at_once} <= {"customers_directory"}
    erasure = Erasure.objects.get()
    assert (erasure.waits_for, erasure.finished_at is None) == ([], False)
    assert places_of(WORDS) == []
    assert stripe_side.sandbox.customers == {}
    assert collector.got[-1].type == "customer.erased"
    assert collector.got[-1].payload["customer_id"] == str(customer.pk)
    other.refresh_from_db()
    assert other.name == "Somebody Else"
    entry = AuditEntry.objects.get(action="customer.erased")
    assert (entry.actor, entry.target, entry.detail) == ("user:officer", f"customer:{customer.pk}", {})


def test_its_log_and_read_models_verify_and_a_rebuild_gives_the_same(
    api: Api, stripe_side: StripeSide, collector: Collector
) -> None:
    customer = everywhere(api, stripe_side, collector)
    Failure.objects.all().delete()
    stays = api.post("/api/v1/customers/", {"name": "Stays"}).json()["id"]
    customer_erase(customer_id=customer.pk, actor="tests")
    all_catch_up(stripe_side)

    all_verify()
    for name in MODELS:
        rebuild_start(name=name, actor="tests")
    projections_run_once()

    for name in MODELS:
        assert rebuild_compare(name=name).is_same
    with connection.cursor() as cursor:
        cursor.execute("SELECT customer_id::text FROM customers_directory")
        assert cursor.fetchall() == [(stays,)]
