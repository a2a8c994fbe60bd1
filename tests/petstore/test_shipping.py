"""The loop through Kafka: an order is confirmed, a consumer ships it, and that event goes the same way."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from django.conf import LazySettings

from examples.petstore.models import Order, OrderBookEntry
from examples.petstore.order_book import OrderBook
from examples.petstore.services import order_place, pet_create
from examples.petstore.shipping import GROUP
from operations.correlation import work_bound
from outbox.consuming.handlers import handlers_load
from outbox.consuming.inbox import messages_handle
from outbox.consuming.messages import Record
from outbox.consuming.worker import ConsumerWorker
from outbox.models import InboxMessage, ParkedMessage, StoredEvent
from outbox.relay import relay_until_idle
from outbox.status import EventStatus, wait_for
from projections.runner import projections_run_once
from projections.verifying import projection_verify
from tests.outbox.database import database_url
from tests.petstore.test_kafka import records

pytestmark = [pytest.mark.feature("D14", "A11"), pytest.mark.django_db(transaction=True)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _topics_of_its_own(settings: LazySettings) -> None:
    settings.KAFKA_TOPIC_PREFIX = f"t{secrets.token_hex(4)}"
    settings.OUTBOX_POLLING_INTERVAL = 0.05
    handlers_load()


def placed(count: int) -> list[str]:
    pet, _ = pet_create(name="Max", species="dog", price=Decimal(800), stock=count)
    return [order_place(customer_id="customer_123", pet_id=pet.pk)[0].pk for _ in range(count)]


def test_it_ships_what_was_confirmed_and_tells_so() -> None:
    with work_bound("order", correlation="order-of-ann"):
        first, second = placed(2)
    relay_until_idle()

    worker = ConsumerWorker(GROUP, ["orders"])
    try:
        worker.run_until_idle()
    finally:
        worker.close()
    relay_until_idle()
    projections_run_once()

    confirmed = StoredEvent.objects.get(aggregate_id=first, type="confirmed")
    shipped = StoredEvent.objects.get(aggregate_id=first, type="shipped")
    told = [value["status"] for _, value, _ in records("orders", {first}, 3)]
    assert set(Order.objects.values_list("status", flat=True)) == {"shipped"}
    assert told == ["pending", "confirmed", "shipped"]
    assert (shipped.sequence, shipped.origin, shipped.causation_id) == (3, "shipping", str(confirmed.uid))
    assert shipped.correlation_id == "order-of-ann"
    assert set(OrderBookEntry.objects.values_list("order_id", "status")) == {(first, "shipped"), (second, "shipped")}
    assert OrderBookEntry.objects.get(order_id=first).confirmed_at is not None
    assert projection_verify(name=OrderBook.name).count == 0


def test_it_ships_an_order_once_however_often_it_hears_of_it() -> None:
    (order,) = placed(1)

    hear(confirmed(order, 0), confirmed(order, 0), confirmed(order, 1))

    outcomes = list(InboxMessage.objects.order_by("event_id").values_list("event_id", "outcome"))
    assert outcomes == [("e0", "success"), ("e1", "success")]
    assert Order.objects.get().status == "shipped"
    assert StoredEvent.objects.filter(aggregate_id=order, type="shipped").count() == 1


def test_an_order_of_another_shop_is_a_dead_letter_and_holds_nothing_up() -> None:
    (order,) = placed(1)

    hear(confirmed("order_of_nobody", 0), confirmed(order, 1))

    parked = ParkedMessage.objects.get()
    assert (parked.aggregate_id, parked.state, parked.code) == ("order_of_nobody", "dead", "unknown_order")
    assert Order.objects.get(pk=order).status == "shipped"


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_each_order_is_shipped_once_although_consumers_and_relays_are_killed(settings: LazySettings) -> None:
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "KAFKA_TOPIC_PREFIX": settings.KAFKA_TOPIC_PREFIX,
        "KAFKA_SESSION_TIMEOUT": "6",
        "OUTBOX_LEASE_SECONDS": "15",
        "KAFKA_MESSAGE_TIMEOUT": "1.5",
        "LOG_LEVEL": "ERROR",
    }

    def start(*command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "manage.py", *command], cwd=ROOT, env=environment)

    consumer, relay = ("kafka_worker", "--group", GROUP), ("relay",)
    running = [start(*relay), start(*consumer)]
    try:
        orders = placed(40)
        until(lambda: shipped() > 0)
        for one in running:
            one.send_signal(signal.SIGKILL)
            one.wait(60)
        running = [start(*relay), start(*consumer)]
        orders += placed(40)
        until(lambda: shipped() == len(orders))
        until(lambda: projections_run_once() == 0)
        for event in StoredEvent.objects.filter(topic="orders").values_list("id", flat=True):
            assert wait_for(event, "kafka", 60) is EventStatus.PROCESSED
    finally:
        for one in running:
            one.send_signal(signal.SIGKILL)
            one.wait(60)

    told: dict[str, list[object]] = {}
    for key, value, sequence in records("orders", set(orders), 3 * len(orders)):
        seen = told.setdefault(key, [])
        # As consumers do: what is not above the last number came before.
        if int(sequence) > len(seen):
            seen.append(value["status"])
    assert told == {order: ["pending", "confirmed", "shipped"] for order in orders}
    assert StoredEvent.objects.filter(type="shipped").count() == len(orders)
    assert projection_verify(name=OrderBook.name).count == 0


def confirmed(order: str, number: int) -> Record:
    """The message that an order was confirmed, with an id of that number."""
    headers = {"ce_id": f"e{number}", "ce_type": "confirmed", "ce_subject": order, "aggregate_type": "order"}
    return Record(
        topic="t.orders",
        partition=0,
        offset=number,
        key=order.encode(),
        value=b"{}",
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )


def hear(*messages: Record) -> None:
    messages_handle(group=GROUP, topic="orders", worker="w", records=messages)


def shipped() -> int:
    return Order.objects.filter(status="shipped").count()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, f"{shipped()} orders were shipped"
        time.sleep(0.05)
