"""The main job as it runs: API → log → relay → Stripe over HTTP → signed webhook over HTTP → here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from customers.models import Customer, SyncState
from customers.services import customer_create, customer_update
from outbox.relaying import Relay
from zenskar.sandbox.stripe.core import StripeSandbox


@pytest.fixture
def running(sandbox: StripeSandbox, settings: Settings, live_server: LiveServer) -> Iterator[StripeSandbox]:
    settings.OUTBOX_SUBSCRIBERS = ["customers.sync.pokes.SyncPokes"]
    sandbox.webhooks.url = f"{live_server.url}/webhooks/stripe"
    relay = Relay(None)
    relay.start()
    yield sandbox
    assert relay.stop()
    sandbox.webhooks.url = None
    # What is on its way now would arrive in the database of the next test.
    sandbox.reset()
    until(lambda: sandbox.webhooks.posting() == 0)


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "It did not happen in time."
        time.sleep(0.02)


@pytest.mark.feature("G1", "G2", "G3", "A10", "F4")
@pytest.mark.django_db(transaction=True)
def test_it_brings_a_customer_to_stripe_and_a_change_back(running: StripeSandbox) -> None:
    customer = customer_create(name="Ada", email="ada@example.com", metadata={"plan": "gold"})
    until(lambda: SyncState.objects.filter(status="in_sync").exists())
    ((remote_id, created),) = running.customers.items()

    running.customer_edit(remote_id, name="Ada Lovelace")
    until(lambda: Customer.objects.get().name == "Ada Lovelace")
    customer_update(customer_id=customer.pk, changes={"phone": "1"})
    until(lambda: running.customers[remote_id]["phone"] == "1")
    until(lambda: SyncState.objects.get().status == "in_sync")
    until(lambda: running.webhooks.waiting() == 0)

    assert created["email"] == "ada@example.com"
    assert running.customers[remote_id]["name"] == "Ada Lovelace"
    assert [line.method for line in running.request_log.writes()] == ["POST", "POST"]


@pytest.mark.feature("G5", "A10")
@pytest.mark.django_db(transaction=True)
def test_it_delivers_everything_when_stripe_is_back(running: StripeSandbox, settings: Settings) -> None:
    running.faults.add(route="*", effect="reset", times=None)
    customers = [customer_create(name=f"Ada {number}") for number in range(5)]
    until(lambda: SyncState.objects.exclude(last_error_code="").exists())

    running.faults.clear()
    until(lambda: SyncState.objects.filter(status="in_sync").count() == len(customers))

    assert sorted(customer["name"] for customer in running.customers.values()) == [f"Ada {n}" for n in range(5)]
