"""Webhooks of any integration: stored once, classed, turned into pokes."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from django.db import connection

from customers.integrations import RemoteMessage, integration_get
from customers.models import Customer, Priority, SyncState, Webhook
from customers.services import customer_create, customer_update
from customers.sync.engine import sync_once
from customers.sync.webhooks import webhook_store, webhooks_process_once
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import MemoryIntegration, World


def message(**changes: Any) -> RemoteMessage:
    payload = {"id": "m1", "type": "updated", "remote_id": "r1", "reference": "", "fields": {"name": "A"}, "key": ""}
    values = {
        "event_id": "m1",
        "type": "updated",
        "account": "",
        "livemode": False,
        "remote_id": "r1",
        "payload": payload,
        **changes,
    }
    return RemoteMessage(**values)


def store(**changes: Any) -> bool:
    return webhook_store(integration_get("memory"), message(**changes))


@pytest.mark.feature("G2")
@pytest.mark.django_db
def test_it_stores_a_message_once(side: Side) -> None:
    first, second = store(), store()

    assert (first, second) == (True, False)
    assert Webhook.objects.count() == 1


@pytest.mark.feature("G2")
@pytest.mark.django_db(transaction=True)
def test_it_stores_a_message_once_when_it_comes_twice_at_the_same_moment(world: World) -> None:
    gate = threading.Barrier(4)

    def deliver() -> None:
        gate.wait(60)
        store()
        connection.close()

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert Webhook.objects.count() == 1


@pytest.mark.feature("G2", "A16")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"account": "acct_other"}, "of another account"),
        ({"livemode": True}, "live, but the key in use is a test key"),
        ({"ignore": "of a type that means nothing here"}, "of a type that means nothing here"),
    ],
)
def test_it_keeps_and_ignores_what_is_not_for_us(side: Side, changes: dict[str, Any], reason: str) -> None:
    store(**changes)

    worked = webhooks_process_once()

    webhook = Webhook.objects.get()
    assert worked == 0
    assert (webhook.outcome, webhook.reason) == ("ignored", reason)
    assert webhook.processed_at is not None
    assert not SyncState.objects.exists()


@pytest.mark.feature("G2")
@pytest.mark.django_db
def test_it_marks_the_row_dirty_in_the_class_of_webhooks(side: Side) -> None:
    customer = side.linked(name="Ada")
    side.world.edit(side.state(customer).remote_id or "", name="Ada L.")

    side.hear()

    state = side.state(customer)
    assert (state.priority, state.dirty_at is not None) == (Priority.WEBHOOK, True)
    assert Webhook.objects.latest("id").outcome == "poked"


@pytest.mark.feature("G1", "G2")
@pytest.mark.django_db
def test_a_message_about_our_own_create_is_that_customers(side: Side) -> None:
    """Its answer was lost: the message is a reason to find out, and no record that nobody knows."""
    customer = customer_create(name="Ada")
    side.poke()
    side.world.lose_answers(1, method="create")
    side.sync(customer)

    side.hear()

    state = SyncState.objects.get()
    assert (state.customer_id, state.priority, state.poke_count) == (customer.pk, Priority.INTERACTIVE, 2)
    side.rest()
    assert [call.method for call in side.world.writes() if call.changed] == ["create"]
    assert len(side.world.living()) == 1
    assert Customer.objects.count() == 1


@pytest.mark.feature("G2", "G3")
@pytest.mark.django_db
def test_it_asks_nobody_about_what_is_known_already(side: Side) -> None:
    """Somebody's change that was taken in, told once more by a message of its own."""
    customer = side.linked(name="Ada")
    side.world.edit(side.state(customer).remote_id or "", name="Ada L.")
    told = side.world.messages[-1]
    side.rest()
    side.world.calls.clear()

    side.world.messages.append({**told, "id": "evt_again"})
    side.rest()

    webhook = Webhook.objects.latest("id")
    assert (webhook.outcome, webhook.reason) == ("ignored", "nothing new: an echo")
    assert side.world.calls == []


@pytest.mark.feature("G2")
@pytest.mark.django_db
@pytest.mark.parametrize("order", [1, -1])
def test_it_ends_the_same_in_whatever_order_messages_come(side: Side, order: int) -> None:
    customer = side.linked(name="Ada")
    remote_id = side.state(customer).remote_id or ""
    for number in range(4):
        side.world.edit(remote_id, name=f"Ada {number}")
    messages = list(side.world.messages)[::order]
    side.world.messages.clear()

    for one in [*messages, *messages]:
        side.world.messages.append(one)
        side.hear()
        for state in side.dirty():
            sync_once(state.pk)

    customer.refresh_from_db()
    assert customer.name == "Ada 3"
    assert side.world.writes()[1:] == []
    assert len(side.events()) == 1


@pytest.mark.feature("G2")
@pytest.mark.django_db
def test_it_makes_one_customer_of_two_messages_about_an_unknown_record(side: Side) -> None:
    record = side.world.add(name="Grace")
    side.world.edit(record.remote_id, name="Grace H.")

    side.rest()

    assert [customer.name for customer in Customer.objects.all()] == ["Grace H."]
    assert SyncState.objects.count() == 1


@pytest.mark.feature("G2")
@pytest.mark.django_db
def test_it_resurrects_nothing_that_was_created_and_deleted_before_it_was_heard_of(side: Side) -> None:
    record = side.world.add(name="Grace")
    side.world.remove(record.remote_id)

    side.rest()

    assert not Customer.objects.exists()
    assert side.world.writes() == []


@pytest.mark.feature("G2")
@pytest.mark.django_db
def test_it_looks_when_a_value_was_changed_back_while_a_push_was_under_way(side: Side) -> None:
    """The message says just what the base says, but the base is about to move."""
    customer = side.linked(name="Ada")
    remote_id = side.state(customer).remote_id or ""
    customer_update(customer_id=customer.pk, changes={"name": "Here"})
    side.poke()

    def interfere(step: str) -> None:
        if step == "answered":
            side.world.edit(remote_id, name="Ada")
            side.hear()

    sync_once(side.state(customer).pk, on_step=interfere)

    assert side.remote(customer) == {"name": "Ada"}
    assert side.dirty() != []
    side.rest()
    customer.refresh_from_db()
    assert customer.name == "Ada"


@pytest.mark.feature("G2")
@pytest.mark.django_db(transaction=True)
def test_it_shares_messages_between_workers_without_doing_one_twice(side: Side) -> None:
    customers = [customer_create(name=f"Ada {number}") for number in range(10)]
    side.rest()
    for customer in customers:
        side.world.edit(side.state(customer).remote_id or "", name="there")
    for each in side.world.messages:
        body = json.dumps(each).encode()
        integration = MemoryIntegration()
        webhook_store(integration, integration.webhook_verify(body=body, headers={"Signature": "good"}))
    side.world.messages.clear()
    before = dict(SyncState.objects.values_list("id", "poke_count"))
    gate, counts = threading.Barrier(3), []

    def work() -> None:
        gate.wait(60)
        counts.append(webhooks_process_once())
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    after = dict(SyncState.objects.values_list("id", "poke_count"))
    assert sum(counts) == 10
    assert {after[key] - before[key] for key in before} == {1}
