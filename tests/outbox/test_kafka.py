from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition
from django.conf import LazySettings
from django.db import transaction

from outbox.events import Event
from outbox.kafka import KafkaSubscriber
from outbox.models import Delivery, DeliveryAttempt, Subscription
from outbox.publishing import publish, publish_many
from outbox.relay import relay_once, relay_until_idle
from outbox.subscribers import Deadline
from outbox.subscriptions import subscription_limit, subscription_resume
from tests.outbox.conftest import new, only, publish_all
from zenskar.sandbox.kafka import KafkaMock

pytestmark = [pytest.mark.feature("D14")]

Reader = Callable[[int], list[Message]]


@pytest.fixture
def kafka(transactional_db: None, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaSubscriber]:
    """The only subscriber, on topics of this test alone."""
    settings.KAFKA_TOPIC_PREFIX = f"t{secrets.token_hex(4)}"
    monkeypatch.setattr("outbox.kafka_topics.ANSWER_SECONDS", 1.0)
    subscriber = KafkaSubscriber()
    only(monkeypatch, subscriber)
    yield subscriber
    subscriber.close()


@pytest.fixture
def read(settings: LazySettings) -> Iterator[Reader]:
    """Reads that many records of the topic ``customers``, and then makes sure that there are no more."""
    consumers: list[Consumer] = []

    def records(count: int) -> list[Message]:
        consumer = Consumer(
            {
                "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
                "group.id": secrets.token_hex(4),
                "auto.offset.reset": "earliest",
                "log_level": 3,
            }
        )
        consumers.append(consumer)
        topic = f"{settings.KAFKA_TOPIC_PREFIX}.customers"
        partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        found: list[Message] = []
        for _ in range(200):
            found += [one for one in consumer.consume(500, timeout=0.1) if one.error() is None]
            if len(found) >= count:
                break
        return found + [one for one in consumer.consume(10, timeout=0.1) if one.error() is None]

    yield records
    for consumer in consumers:
        consumer.close()


@pytest.mark.feature("D13", "A10")
def test_it_brings_an_event_to_kafka_with_its_envelope(kafka: KafkaSubscriber, read: Reader) -> None:
    with transaction.atomic():
        publish(
            new(
                "cus-1",
                payload={"name": "Ünal"},
                headers={"priority": "bulk", "sequence": "7"},
                correlation_id="c-1",
                causation_id="r-1",
                traceparent="00-1-2-01",
            )
        )

    relay_once()

    (record,) = read(1)
    headers = {name: value.decode() for name, value in record.headers()}
    assert record.key() == b"cus-1"
    assert record.value() == '{"name":"Ünal"}'.encode()
    assert uuid.UUID(headers.pop("ce_id")).version == 7
    assert datetime.fromisoformat(headers.pop("ce_time")).tzinfo is UTC
    assert headers == {
        "ce_specversion": "1.0",
        "ce_source": "/zenskar",
        "ce_type": "customer.updated",
        "ce_subject": "cus-1",
        "content-type": "application/json",
        "sequence": "1",
        "schema_version": "1",
        "aggregate_type": "customer",
        "correlation_id": "c-1",
        "causation_id": "r-1",
        "traceparent": "00-1-2-01",
        "priority": "bulk",
    }


@pytest.mark.feature("D6", "D15")
def test_it_keeps_the_order_of_each_aggregate(kafka: KafkaSubscriber, read: Reader) -> None:
    for _ in range(5):
        publish_all(*[f"c{n % 10}" for n in range(100)])
        relay_once()

    numbers: dict[bytes, list[int]] = {}
    places: dict[bytes, set[int]] = {}
    for record in read(500):
        numbers.setdefault(record.key(), []).append(int(dict(record.headers())["sequence"]))
        places.setdefault(record.key(), set()).add(record.partition())
    assert all(found == list(range(1, 51)) for found in numbers.values())
    assert len(numbers) == 10
    assert all(len(partitions) == 1 for partitions in places.values())


@pytest.mark.feature("D10")
def test_it_keeps_where_kafka_put_an_event(kafka: KafkaSubscriber, read: Reader, settings: LazySettings) -> None:
    subscription_limit(name="kafka", rate_limit=None, concurrency=None, keep_successes=True, actor="user:ann")
    ids = publish_all("a", "b", "a")

    relay_until_idle()

    found = {(record.key().decode(), record.partition(), record.offset()) for record in read(3)}
    attempts = DeliveryAttempt.objects.order_by("event_id")
    said = [one.response.removeprefix(f"{settings.KAFKA_TOPIC_PREFIX}.customers/") for one in attempts]
    assert [one.event_id for one in attempts] == ids
    assert {(name, *map(int, place.split("@"))) for name, place in zip("aba", said, strict=True)} == found


@pytest.mark.feature("H2")
def test_it_declares_an_event_dead_that_kafka_cannot_take(
    kafka: KafkaSubscriber, read: Reader, settings: LazySettings
) -> None:
    settings.KAFKA_MESSAGE_MAX_BYTES = 2_000
    with transaction.atomic():
        publish_many([new("big", payload={"x": secrets.token_hex(1_000)}), new("big"), new("small")])

    relay_until_idle()

    assert [record.key() for record in read(1)] == [b"small"]
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.error_class, delivery.code) == ("dead", "permanent", "too_large")


@pytest.mark.feature("D11")
def test_it_waits_while_kafka_is_away_and_loses_nothing(
    kafka: KafkaSubscriber, read: Reader, settings: LazySettings
) -> None:
    settings.KAFKA_MESSAGE_TIMEOUT = 2
    there = settings.KAFKA_BOOTSTRAP_SERVERS
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    publish_all("a", "b")
    relay_once()
    broken = Subscription.objects.get()
    settings.KAFKA_BOOTSTRAP_SERVERS = there
    Subscription.objects.update(breaker_until="2000-01-01T00:00Z")

    relay_until_idle()

    assert broken.breaker_failures == 1
    assert sorted(record.key() for record in read(2)) == [b"a", b"b"]
    assert not Delivery.objects.exists()
    assert Subscription.objects.get().breaker_failures == 0


@pytest.mark.feature("D11")
def test_it_resumes_after_the_broker_vanished_with_an_open_connection(
    kafka: KafkaSubscriber, read: Reader, settings: LazySettings
) -> None:
    settings.KAFKA_MESSAGE_TIMEOUT = 2
    there = settings.KAFKA_BOOTSTRAP_SERVERS
    mock = KafkaMock()
    mock.start()
    settings.KAFKA_BOOTSTRAP_SERVERS = mock.bootstrap_servers
    publish_all("a")
    relay_once()
    mock.stop()
    publish_all("a", "a")
    relay_once()
    broken = Subscription.objects.get()
    settings.KAFKA_BOOTSTRAP_SERVERS = there
    Subscription.objects.update(breaker_until="2000-01-01T00:00Z")

    relay_until_idle()

    assert broken.breaker_failures == 1
    assert [int(dict(record.headers())["sequence"]) for record in read(2)] == [2, 3]


def test_it_pauses_when_no_broker_is_configured(kafka: KafkaSubscriber, read: Reader, settings: LazySettings) -> None:
    there = settings.KAFKA_BOOTSTRAP_SERVERS
    settings.KAFKA_BOOTSTRAP_SERVERS = ""
    publish_all("a")
    relay_once()
    reason = Subscription.objects.get().paused_reason
    settings.KAFKA_BOOTSTRAP_SERVERS = there
    subscription_resume(name="kafka")

    relay_once()

    assert "KAFKA_BOOTSTRAP_SERVERS" in reason
    assert len(read(1)) == 1


@pytest.mark.feature("D13")
def test_it_makes_a_producer_of_its_own_in_a_forked_process(kafka: KafkaSubscriber, read: Reader) -> None:
    first, second = (stored(sequence) for sequence in (1, 2))
    assert kafka.deliver([first], Deadline.after(20)) == []

    child = os.fork()
    if child == 0:
        # Nothing of the parent's may be cleaned up here, whatever happens.
        try:
            os._exit(0 if kafka.deliver([second], Deadline.after(20)) == [] else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert len(read(2)) == 2


def stored(sequence: int) -> Event:
    return Event(
        position=sequence,
        id=sequence,
        uid_text=str(uuid.uuid4()),
        lane=0,
        topic="customers",
        type="customer.updated",
        aggregate_type="customer",
        aggregate_id="a",
        sequence=sequence,
        schema_version=1,
        payload_text="{}",
        headers_text="{}",
        origin="",
        correlation_id="",
        causation_id="",
        traceparent="",
        created_text=datetime.now(UTC).isoformat(),
    )
