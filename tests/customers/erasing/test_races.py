"""What was under way when somebody was erased brings nothing of them back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection

from customers.erasing import services
from customers.erasing.services import customer_erase, erasures_sweep_once
from customers.errors import CustomerDeleted, CustomerNotFound
from customers.models import Customer, Erasure, SyncRequest
from customers.services import customer_create, customer_delete, customer_update
from customers.stripe.client import stripe_client
from customers.stripe.conf import stripe_settings
from customers.sync.engine import sync_once
from outbox.deciding import deliveries_retry
from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.models import Delivery, StoredEvent
from outbox.relay import relay_until_idle
from outbox.subscribers import Failure as Refusal
from projections.runner import projections_run_once
from tests.customers.erasing.searching import places_of
from tests.customers.races import in_threads
from tests.customers.stripe.conftest import StripeSide
from tests.customers.sync.conftest import as_uuid
from tests.outbox.collecting import Collector

pytestmark = [pytest.mark.feature("H8", "C1"), pytest.mark.django_db(transaction=True)]

WORDS = ("quimby",)


def quimby() -> Customer:
    return customer_create(name="Zuzanna Quimby", email="zuzanna@quimby.example", metadata={"plan": "gold"})


def sweep() -> Erasure:
    Erasure.objects.update(next_pass_at="2020-01-01T00:00:00Z")
    erasures_sweep_once()
    return Erasure.objects.get()


def once(customer: Customer) -> Callable[[], None]:
    left = [customer.pk]

    def erase() -> None:
        while left:
            customer_erase(customer_id=left.pop(), actor="tests")

    return erase


def test_a_delivery_that_fails_afterwards_with_what_it_had_read(stripe_side: StripeSide, collector: Collector) -> None:
    customer = quimby()
    erase = once(customer)

    def refuse(event: Event) -> Refusal | None:
        if event.sequence > 1:
            return None
        erase()
        return Refusal(event, ErrorClass.RETRYABLE, "busy", f"no room for {event.payload['name']}")

    collector.refuse = refuse
    relay_until_idle()
    kept = places_of(WORDS)
    collector.refuse = lambda event: None
    deliveries_retry(ids=[Delivery.objects.get().pk], actor="tests")
    relay_until_idle()
    stripe_side.rest()
    projections_run_once()

    erasure = sweep()

    assert kept != []
    assert Delivery.objects.get().message == "Erased."
    assert (erasure.waits_for, places_of(WORDS)) == ([], [])
    assert [event.payload["name"] for event in collector.got] == [None, None, None]


@pytest.mark.parametrize("step", ["taken", "fetched", "decided", "answered"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_sync_at_any_step(stripe_side: StripeSide, collector: Collector, step: str, linked: bool) -> None:
    customer = quimby()
    if linked:
        stripe_side.rest()
        customer_update(customer_id=customer.pk, changes={"name": "Zuza Quimby"})
    relay_until_idle()
    erase = once(customer)

    sync_once(stripe_side.state(customer).pk, on_step=lambda reached: erase() if reached == step else None)
    relay_until_idle()
    stripe_side.rest()
    projections_run_once()
    erasure = sweep()

    assert (erasure.waits_for, places_of(WORDS)) == ([], [])
    assert stripe_side.sandbox.customers == {}
    assert erasure.finished_at is not None


def test_a_request_whose_answer_was_lost_is_finished_word_by_word_first(
    stripe_side: StripeSide, collector: Collector
) -> None:
    customer = quimby()
    relay_until_idle()
    stripe_side.sandbox.faults.add(route="POST /v1/customers", effect="reset", phase="after")
    stripe_side.sync(customer)

    first = customer_erase(customer_id=customer.pk, actor="tests")
    flying = SyncRequest.objects.get().body["email"]
    relay_until_idle()
    stripe_side.rest()
    projections_run_once()
    last = sweep()

    assert "stripe: a request whose outcome is not known" in first.waits_for
    assert flying == "zuzanna@quimby.example"
    assert len(stripe_side.sandbox.request_log.matching("POST /v1/customers")) == 2
    assert (last.waits_for, places_of(WORDS), stripe_side.sandbox.customers) == ([], [], {})


def test_a_webhook_that_comes_later_is_not_kept(stripe_side: StripeSide, collector: Collector) -> None:
    customer = quimby()
    relay_until_idle()
    stripe_side.rest()
    remote_id = stripe_side.state(customer).remote_id or ""
    stripe_side.sandbox.customer_edit(remote_id, phone="+48 quimby")
    customer_erase(customer_id=customer.pk, actor="tests")
    relay_until_idle()
    stripe_side.sync(customer)
    stripe_side.rest()

    assert places_of(("+48 quimby",)) == []


def test_a_customer_with_something_live_there_is_shown_as_waiting(
    stripe_side: StripeSide, collector: Collector
) -> None:
    customer = quimby()
    relay_until_idle()
    stripe_side.rest()
    remote_id = stripe_side.state(customer).remote_id or ""
    client = stripe_client(stripe_settings())
    created = client.v1.subscriptions.create({"customer": remote_id, "items": [{"price": "price_gold"}]})
    customer_erase(customer_id=customer.pk, actor="tests")
    relay_until_idle()
    stripe_side.rest()
    projections_run_once()

    waiting = sweep()
    client.v1.subscriptions.cancel(created.id)
    stripe_side.rest()
    last = sweep()

    assert waiting.waits_for == ["stripe: the record there has something live and is not deleted"]
    assert waiting.finished_at is None
    assert places_of(WORDS) == []
    assert (last.waits_for, stripe_side.sandbox.customers) == ([], {})


def test_a_worker_that_dies_before_its_commit_leaves_all_of_it(
    stripe_side: StripeSide, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = quimby()

    class Died(BaseException):
        pass

    def die(**_: object) -> None:
        raise Died

    monkeypatch.setattr(services, "traces_erase", die)
    with pytest.raises(Died):
        customer_erase(customer_id=customer.pk, actor="tests")
    monkeypatch.undo()
    untouched = Customer.objects.get()
    again = customer_erase(customer_id=customer.pk, actor="tests")

    assert (untouched.name, untouched.deleted_at, untouched.version) == ("Zuzanna Quimby", None, 1)
    assert again.passes == 1
    assert places_of(WORDS) == []


def test_it_is_erased_once_by_many_who_ask(stripe_side: StripeSide, collector: Collector) -> None:
    customer = quimby()
    connection.close()

    errors = in_threads(*[lambda: customer_erase(customer_id=customer.pk, actor="tests")] * 8)

    assert errors == []
    types = [event.type for event in StoredEvent.objects.order_by("sequence")]
    assert types == ["customer.created", "customer.deleted", "customer.erased"]
    assert Erasure.objects.get().passes == 8


def test_a_change_that_comes_with_it_is_lost_or_erased_and_never_kept(
    stripe_side: StripeSide, collector: Collector
) -> None:
    customer = quimby()
    connection.close()

    def change() -> None:
        for number in range(20):
            try:
                customer_update(customer_id=customer.pk, changes={"name": f"Quimby {number}"})
            except CustomerDeleted:
                return

    errors = in_threads(change, change, lambda: customer_erase(customer_id=customer.pk, actor="tests"))

    assert errors == []
    assert places_of(WORDS) == []


def test_it_erases_whom_it_deleted_before_and_nobody_who_is_not_there(
    stripe_side: StripeSide, collector: Collector
) -> None:
    customer = quimby()
    customer_delete(customer_id=customer.pk)

    customer_erase(customer_id=customer.pk, actor="tests")

    assert [event.type for event in StoredEvent.objects.order_by("sequence")][1:] == [
        "customer.deleted",
        "customer.erased",
    ]
    with pytest.raises(CustomerNotFound):
        customer_erase(customer_id=as_uuid("019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f"), actor="tests")


def test_the_trail_and_attempts_stay_closed_to_everybody_else(stripe_side: StripeSide, collector: Collector) -> None:
    customer_erase(customer_id=quimby().pk, actor="tests")

    with connection.cursor() as cursor:
        for statement in (
            "UPDATE operations_auditentry SET detail = '{}'",
            "UPDATE outbox_attempt SET message = ''",
            "SET zenskar.erasure = 'on'; UPDATE operations_auditentry SET actor = 'nobody'",
        ):
            with pytest.raises(Exception, match=r"only ever added|details of audit"):
                cursor.execute(statement)
        cursor.execute("RESET zenskar.erasure")
