"""The main job against the Stripe sandbox: here → Stripe → back, with all that goes wrong in between."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from customers.models import Conflict, Customer, SyncAccount, SyncRequest, SyncState
from customers.services import customer_create, customer_delete, customer_update
from customers.stripe.client import stripe_client
from customers.stripe.conf import stripe_settings
from customers.sync.engine import Outcome
from tests.customers.stripe.conftest import StripeSide

pytestmark = pytest.mark.django_db

ADDRESS = {"line1": "Via Po 1", "city": "Turin", "postal_code": "10123", "country": "IT"}


@pytest.mark.feature("G1")
def test_it_creates_updates_and_deletes_in_stripe(stripe_side: StripeSide) -> None:
    customer = customer_create(
        name="Ada", email="ada@example.com", phone="+39 011", address=ADDRESS, metadata={"plan": "gold", "seat": "1"}
    )
    stripe_side.rest()
    created = stripe_side.there(customer)
    changes = {"name": "Ada L.", "phone": None, "address": {"city": "Rome"}, "metadata": {"plan": "silver"}}
    customer_update(customer_id=customer.pk, changes=changes)
    stripe_side.rest()
    updated = stripe_side.there(customer)
    customer_delete(customer_id=customer.pk)
    stripe_side.rest()

    assert created["metadata"] == {"plan": "gold", "seat": "1", "zenskar_id": str(customer.pk)}
    assert {key: value for key, value in created["address"].items() if value} == ADDRESS
    assert (updated["name"], updated["phone"]) == ("Ada L.", None)
    assert {key: value for key, value in updated["address"].items() if value} == {"city": "Rome"}
    assert updated["metadata"] == {"plan": "silver", "zenskar_id": str(customer.pk)}
    assert stripe_side.sandbox.customers == {}
    assert len(stripe_side.writes()) == 3


@pytest.mark.feature("G2", "G3")
def test_it_brings_a_change_in_stripe_here_and_sends_nothing_back(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada", metadata={"plan": "gold"})
    stripe_side.rest()
    remote_id = stripe_side.state(customer).remote_id or ""

    for number in range(3):
        stripe_side.sandbox.customer_edit(remote_id, name=f"Ada {number}", metadata={"plan": None, "n": str(number)})
        stripe_side.rest()

    customer.refresh_from_db()
    assert (customer.name, customer.metadata) == ("Ada 2", {"n": "2"})
    by_us = stripe_side.sandbox.request_log.matching("POST *")
    assert len(by_us) == 1


@pytest.mark.feature("G3")
def test_it_reads_nothing_for_the_echo_of_its_own_changes(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada")
    stripe_side.poke()
    stripe_side.sync(customer)
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    stripe_side.poke()
    stripe_side.sync(customer)
    before = len(stripe_side.sandbox.request_log)

    stripe_side.rest()

    assert len(stripe_side.sandbox.request_log) == before


@pytest.mark.feature("G2")
def test_it_imports_and_deletes_what_stripe_tells_of(stripe_side: StripeSide) -> None:
    remote = stripe_side.sandbox.customer_add(name="Grace", email="grace@example.com", address=ADDRESS)
    stripe_side.rest()
    customer = Customer.objects.get()
    imported = (customer.name, customer.email, customer.address)

    stripe_side.sandbox.customer_remove(remote["id"])
    stripe_side.rest()

    customer.refresh_from_db()
    assert imported == ("Grace", "grace@example.com", ADDRESS)
    assert customer.deleted_at is not None
    assert [line for line in stripe_side.sandbox.request_log if line.method != "GET"] == []


@pytest.mark.feature("G2")
def test_it_keeps_customers_of_an_untidy_account_apart(stripe_side: StripeSide) -> None:
    for _ in range(2):
        stripe_side.sandbox.customer_add(email="same@example.com")
    stripe_side.sandbox.customer_add(description="neither name nor e-mail")

    stripe_side.rest()

    assert Customer.objects.count() == 2
    assert SyncState.objects.filter(customer=None, status="orphaned").count() == 1
    assert Conflict.objects.get().kind == Conflict.Kind.EMAIL_TAKEN
    assert len(stripe_side.sandbox.customers) == 3


@pytest.mark.feature("G1")
@pytest.mark.parametrize("effect", ["reset", "status"])
@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("route", ["POST /v1/customers", "POST /v1/customers/*", "DELETE *"])
def test_it_has_each_effect_once_whatever_happens_to_the_answer(
    stripe_side: StripeSide, route: str, phase: str, effect: str
) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")
    stripe_side.sandbox.faults.add(route=route, effect=effect, phase=phase, status=500)
    stripe_side.rest()
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    stripe_side.rest()
    stands = dict(stripe_side.there(customer))
    customer_delete(customer_id=customer.pk)
    stripe_side.rest()

    assert stands["name"] == "Ada L."
    assert len(stripe_side.writes()) == 3
    assert stripe_side.sandbox.customers == {}
    assert stripe_side.state(customer).status == "deleted"
    assert not SyncRequest.objects.in_flight().exists()


@pytest.mark.feature("G1")
def test_it_goes_on_after_a_time_out_whose_request_takes_effect_later(
    stripe_side: StripeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("customers.stripe.client.READ_TIMEOUT", 0.3)
    monkeypatch.setattr("customers.stripe.client._clients", {})
    customer = customer_create(name="Ada")
    stripe_side.poke()
    stripe_side.sandbox.faults.add(route="POST /v1/customers", effect="late_commit", seconds=0.8)

    first = stripe_side.sync(customer)
    for _ in range(100):
        if stripe_side.sync(customer) is Outcome.DONE:
            break

    assert first is Outcome.FAILED
    assert len(stripe_side.sandbox.customers) == 1
    assert stripe_side.state(customer).status == "in_sync"


@pytest.mark.feature("G1")
def test_it_looks_up_and_takes_a_new_key_after_a_saved_500(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")
    stripe_side.poke()
    stripe_side.sandbox.faults.add(route="POST /v1/customers", effect="status", phase="after", status=500)

    outcomes = [stripe_side.sync(customer) for _ in range(3)]

    outcome_of = [request.outcome for request in SyncRequest.objects.order_by("id")]
    assert outcomes[0] is Outcome.FAILED
    assert outcomes[-1] is Outcome.DONE
    assert len(stripe_side.sandbox.customers) == 1
    assert stripe_side.state(customer).status == "in_sync"
    assert outcome_of[0] in ("adopted", "succeeded")


@pytest.mark.feature("G5")
def test_it_waits_without_an_attempt_when_stripe_says_429(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada")
    stripe_side.poke()
    stripe_side.sandbox.faults.add(route="POST *", effect="status", status=429)

    outcome = stripe_side.sync(customer)
    account = SyncAccount.objects.get()
    SyncAccount.objects.update(closed_until=None)
    stripe_side.rest()

    assert outcome is Outcome.FAILED
    assert account.closed_until is not None
    assert stripe_side.state(customer).status == "in_sync"
    assert len(stripe_side.sandbox.customers) == 1


@pytest.mark.feature("G1")
def test_it_retries_one_row_alone_on_a_lock_timeout(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada")
    stripe_side.poke()
    stripe_side.sandbox.faults.add(route="POST *", effect="lock_timeout")

    stripe_side.sync(customer)

    state = stripe_side.state(customer)
    assert (state.last_error_class, state.last_error_code, state.attempts) == ("retryable", "lock_timeout", 1)
    assert SyncAccount.objects.get().closed_until is None


@pytest.mark.feature("G1", "A16")
def test_it_holds_everything_back_while_the_key_is_wrong_and_shows_no_key(
    stripe_side: StripeSide, settings: Settings
) -> None:
    right, settings.STRIPE_API_KEY = settings.STRIPE_API_KEY, "sk_test_thisisawrongkey1234"
    customer = customer_create(name="Ada")
    stripe_side.poke()

    outcome = stripe_side.sync(customer)
    state = stripe_side.state(customer)
    settings.STRIPE_API_KEY = right
    SyncAccount.objects.update(closed_until=None)
    stripe_side.rest()

    assert outcome is Outcome.PUT_OFF
    assert (state.status, state.attempts, state.last_error_class) == ("retrying", 0, "configuration")
    assert "thisisawrongkey" not in state.last_error_message
    assert stripe_side.state(customer).status == "in_sync"


@pytest.mark.feature("A16")
def test_it_never_sends_a_live_key_anywhere_but_to_stripe(stripe_side: StripeSide, settings: Settings) -> None:
    settings.STRIPE_API_KEY = "sk_live_secret"
    customer = customer_create(name="Ada")
    stripe_side.poke()

    stripe_side.sync(customer)

    assert stripe_side.state(customer).last_error_code == "live_key"
    assert len(stripe_side.sandbox.request_log) == 0


@pytest.mark.feature("G1")
def test_it_shows_what_stripe_refuses(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada", metadata={"k" * 41: "too long a key"})
    stripe_side.poke()

    stripe_side.sync(customer)

    state = stripe_side.state(customer)
    assert (state.status, state.last_error_class) == ("failed", "permanent")
    assert state.last_error_message != ""
    assert SyncRequest.objects.get().outcome == "refused"
    assert stripe_side.sandbox.customers == {}


@pytest.mark.feature("G1")
@pytest.mark.parametrize(("policy", "left", "status"), [("refuse", 1, "conflict"), ("delete", 0, "deleted")])
def test_it_minds_live_subscriptions_when_deleting(
    stripe_side: StripeSide, settings: Settings, policy: str, left: int, status: str
) -> None:
    settings.STRIPE_DELETE_POLICY = policy
    customer = customer_create(name="Ada")
    stripe_side.rest()
    client = stripe_client(stripe_settings())
    remote_id = stripe_side.state(customer).remote_id or ""
    client.v1.subscriptions.create({"customer": remote_id, "items": [{"price": "price_gold"}]})

    customer_delete(customer_id=customer.pk)
    stripe_side.rest()

    assert len(stripe_side.sandbox.customers) == left
    assert stripe_side.state(customer).status == status


@pytest.mark.feature("G1")
def test_it_deletes_as_soon_as_the_last_subscription_ends(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada")
    stripe_side.rest()
    client = stripe_client(stripe_settings())
    remote_id = stripe_side.state(customer).remote_id or ""
    created = client.v1.subscriptions.create({"customer": remote_id, "items": [{"price": "price_gold"}]})
    customer_delete(customer_id=customer.pk)
    stripe_side.rest()
    refused = stripe_side.state(customer).status

    client.v1.subscriptions.cancel(created.id)
    stripe_side.rest()

    assert refused == "conflict"
    assert stripe_side.sandbox.customers == {}
    assert stripe_side.state(customer).status == "deleted"


@pytest.mark.feature("G4")
def test_it_does_not_depend_on_whether_stripe_merges_addresses(stripe_side: StripeSide) -> None:
    addresses = []
    for merges in (False, True):
        stripe_side.sandbox.address_merges = merges
        customer = customer_create(name="Ada", address=ADDRESS)
        stripe_side.rest()
        customer_update(customer_id=customer.pk, changes={"address": {"city": "Rome"}})
        stripe_side.rest()
        addresses.append({key: value for key, value in stripe_side.there(customer)["address"].items() if value})
        customer.refresh_from_db()
        assert customer.address == {"city": "Rome"}
    stripe_side.sandbox.address_merges = False

    assert addresses == [{"city": "Rome"}, {"city": "Rome"}]


@pytest.mark.feature("G3")
def test_it_converges_in_every_order_in_which_webhooks_come(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada")
    stripe_side.rest()
    remote_id = stripe_side.state(customer).remote_id or ""
    for order in ("reversed", "shuffled"):
        stripe_side.sandbox.webhooks.hold()
        stripe_side.sandbox.webhooks.script("duplicate", times=2)
        stripe_side.sandbox.webhooks.script("drop", times=1)
        for number in range(4):
            stripe_side.sandbox.customer_edit(remote_id, name=f"{order} {number}")
        stripe_side.sandbox.webhooks.release(order)
        stripe_side.rest()

        customer.refresh_from_db()
        assert customer.name == f"{order} 3"
    assert len(stripe_side.sandbox.request_log.matching("POST *")) == 1
