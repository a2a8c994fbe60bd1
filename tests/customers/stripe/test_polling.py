"""Webhooks that never came, found among Stripe's events."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings

from customers.models import Customer, SyncAccount, Webhook
from customers.services import customer_create
from customers.sync.polling import messages_poll_once
from operations.locks.held import lock_held
from operations.models import Lock, Operation
from tests.customers.stripe.conftest import StripeSide
from zenskar.sandbox.stripe.dashboard import customer_edit

pytestmark = [pytest.mark.django_db, pytest.mark.feature("G2", "C15")]


def account() -> SyncAccount:
    return SyncAccount.objects.get()


def lost(side: StripeSide) -> None:
    side.sandbox.webhooks.pending()


@pytest.fixture(autouse=True)
def windows_end_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from customers.sync import polling

    class Later:
        """Stripe's times are whole seconds: what was made in this one is of the past in the next."""

        @staticmethod
        def now() -> object:
            return timezone.now() + timedelta(seconds=1)

    monkeypatch.setattr(polling, "timezone", Later)


@pytest.mark.feature("C9")
def test_one_process_at_a_time_asks(stripe_side: StripeSide) -> None:
    stripe_side.sandbox.customer_add(name="Bob")
    lost(stripe_side)

    with lock_held("integration", "stripe", seconds=30):
        before = len(stripe_side.sandbox.request_log)
        found = [messages_poll_once()]
        asked = len(stripe_side.sandbox.request_log) - before
    found.append(messages_poll_once())

    assert (found, asked) == ([0, 1], 0)
    assert not Lock.objects.exists()


def test_it_hears_of_what_no_webhook_told(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada")
    stripe_side.rest()
    remote_id = stripe_side.state(customer).remote_id or ""
    stripe_side.sandbox.customer_edit(remote_id, name="Countess")
    added = stripe_side.sandbox.customer_add(name="Bob")
    lost(stripe_side)

    found = messages_poll_once()
    stripe_side.rest()

    customer.refresh_from_db()
    assert found == 2
    assert customer.name == "Countess"
    assert Customer.objects.filter(name="Bob").count() == 1
    assert set(Webhook.objects.filter(polled=True).values_list("remote_id", flat=True)) == {remote_id, added["id"]}
    assert account().polled_until is not None


def test_it_leaves_alone_what_webhooks_told(stripe_side: StripeSide) -> None:
    customer = customer_create(name="Ada")
    stripe_side.rest()
    stripe_side.sandbox.customer_edit(stripe_side.state(customer).remote_id or "", name="Countess")
    stripe_side.rest()
    kept = Webhook.objects.count()

    found = [messages_poll_once(), messages_poll_once()]

    assert found == [0, 0]
    assert Webhook.objects.count() == kept
    assert not Webhook.objects.filter(polled=True).exists()


def test_a_webhook_that_comes_after_all_is_no_second_message(stripe_side: StripeSide) -> None:
    stripe_side.sandbox.customer_add(name="Bob")
    found = messages_poll_once()

    heard = stripe_side.hear()
    stripe_side.rest()

    assert (found, heard) == (1, 1)
    assert Webhook.objects.count() == 1
    assert Customer.objects.count() == 1


@pytest.mark.feature("C11")
def test_it_goes_on_with_the_page_where_it_was(stripe_side: StripeSide, monkeypatch: pytest.MonkeyPatch) -> None:
    from customers.stripe import events

    monkeypatch.setattr(events, "PAGE", 2)
    added = stripe_side.sandbox.customer_add(name="Bob")
    for number in range(4):
        customer_edit(stripe_side.sandbox, added["id"], {"phone": str(number)})
    lost(stripe_side)
    stripe_side.sandbox.faults.add(route="GET /v1/events", status=500, skip=1)

    first = messages_poll_once()
    place = account()
    second = messages_poll_once()

    assert (first, second) == (2, 3)
    assert place.polling_after != ""
    assert place.polling_error != ""
    assert (account().polling_until, account().polling_after, account().polling_error) == (None, "", "")
    assert Webhook.objects.count() == 5


def test_it_begins_the_window_anew_when_its_place_is_gone(stripe_side: StripeSide) -> None:
    stripe_side.sandbox.customer_add(name="Bob")
    lost(stripe_side)
    messages_poll_once()
    now = timezone.now()
    Webhook.objects.all().delete()
    SyncAccount.objects.update(polling_until=now + timedelta(seconds=2), polling_after="evt_long_gone")

    assert messages_poll_once() == 1


@pytest.mark.feature("G5")
def test_it_compares_both_sides_when_the_gap_is_longer_than_events_are_kept(stripe_side: StripeSide) -> None:
    messages_poll_once()
    SyncAccount.objects.update(polled_until=timezone.now() - timedelta(days=31))

    messages_poll_once()
    messages_poll_once()

    operation = Operation.objects.get()
    assert (operation.kind, operation.state, operation.actor) == ("customers.reconcile", "running", "system")


def test_it_does_nothing_without_a_key_and_says_when_one_is_wrong(stripe_side: StripeSide, settings: Settings) -> None:
    settings.STRIPE_API_KEY = ""
    assert messages_poll_once() == 0
    assert not SyncAccount.objects.exists()

    settings.STRIPE_API_KEY = "sk_test_wrong"
    assert messages_poll_once() == 0
    assert account().polling_error != ""


def test_it_keeps_of_other_accounts_and_types_nothing(stripe_side: StripeSide) -> None:
    from customers.stripe.client import stripe_client
    from customers.stripe.conf import stripe_settings

    client = stripe_client(stripe_settings())
    created = client.v1.customers.create({"name": "Ada"})
    client.v1.subscriptions.create({"customer": created.id, "items": [{"price": "price_gold"}]})
    lost(stripe_side)

    messages_poll_once()

    assert set(Webhook.objects.values_list("type", flat=True)) == {"customer.created"}
