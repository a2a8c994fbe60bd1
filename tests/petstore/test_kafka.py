"""The shop's events on their topics, through the Kafka protocol."""

from __future__ import annotations

import json
import time

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from django.conf import settings

from examples.petstore.services import order_place, pet_create, user_register
from outbox.relay import relay_until_idle

pytestmark = [pytest.mark.feature("D14", "D6"), pytest.mark.django_db(transaction=True)]


def records(topic: str, keys: set[str], count: int) -> list[tuple[str, dict[str, object], str]]:
    """Records of a topic with these keys, until there are so many different ones: key, value and sequence."""
    name = f"{settings.KAFKA_TOPIC_PREFIX}.{topic}"
    consumer = Consumer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "group.id": "shop", "log_level": 0})
    try:
        partitions = consumer.list_topics(name, timeout=60).topics[name].partitions
        consumer.assign([TopicPartition(name, partition, OFFSET_BEGINNING) for partition in partitions])
        found: list[tuple[str, dict[str, object], str]] = []
        ends = time.monotonic() + 60
        # One that came twice, since its relay was killed, is none more.
        while len({(key, sequence) for key, _, sequence in found}) < count and time.monotonic() < ends:
            message = consumer.poll(0.2)
            if message is None or message.error() is not None or (message.key() or b"").decode() not in keys:
                continue
            headers = dict(message.headers() or [])
            found.append((message.key().decode(), json.loads(message.value()), headers["sequence"].decode()))
        return found
    finally:
        consumer.close()


def test_they_arrive_on_their_topics_in_the_order_of_the_workflow() -> None:
    pet, _ = pet_create(name="Max", species="dog", price=800, stock=2)  # type: ignore[arg-type]
    orders = [order_place(customer_id="customer_123", pet_id=pet.pk)[0].pk for _ in range(2)]
    user_register(user_id="user_kafka", name="John Doe", email="john@example.com")

    relay_until_idle()

    by_order: dict[str, list[object]] = {}
    for key, value, _ in records("orders", set(orders), 4):
        by_order.setdefault(key, []).append(value["status"])
    pets = [(value["stock"], sequence) for _, value, sequence in records("pets", {pet.pk}, 3)]
    users = [value["email"] for _, value, _ in records("users", {"user_kafka"}, 1)]
    assert by_order == {order: ["pending", "confirmed"] for order in orders}
    assert pets == [(2, "1"), (1, "2"), (0, "3")]
    assert users == ["john@example.com"]
