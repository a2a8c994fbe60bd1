from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from django.conf import LazySettings
from django.db import connection

from outbox.consuming.handlers import Function, handles, unregister
from outbox.consuming.messages import Message
from outbox.consuming.worker import ConsumerWorker
from outbox.models import ParkedMessage

GROUP = "tests"


class Kafka:
    """The outside: produces messages on topics of this test alone, and runs workers."""

    def __init__(self, servers: str, prefix: str) -> None:
        self.servers = servers
        self.prefix = prefix
        self.group = f"{GROUP}-{prefix}"
        self._producer = Producer(
            {"bootstrap.servers": servers, "log_level": 0, "message.max.bytes": 10_000_000, "linger.ms": 0}
        )
        self.workers: list[ConsumerWorker] = []

    def send(
        self,
        key: str | None = "o-1",
        sequence: int | None = None,
        *,
        topic: str = "orders",
        value: bytes | None = None,
        **more: Any,
    ) -> None:
        """One message as the outbox sends it; a header that is None is left out."""
        headers: dict[str, str | None] = {
            "ce_id": f"{key}-{sequence}",
            "ce_type": "order.placed",
            "ce_subject": key,
            "aggregate_type": "order",
            "sequence": None if sequence is None else str(sequence),
            "schema_version": "1",
            **more.pop("headers", {}),
        }
        payload = orjson.dumps({"n": sequence, **more}) if value is None else value
        self._producer.produce(
            f"{self.prefix}.{topic}",
            payload,
            key,
            partition=0,
            headers=[(name, text) for name, text in headers.items() if text is not None],
        )
        self._producer.flush(10)

    def worker(self, *topics: str) -> ConsumerWorker:
        worker = ConsumerWorker(self.group, topics or ("orders",))
        self.workers.append(worker)
        return worker

    def work(self) -> int:
        """A worker, the same at every call, handles what waits."""
        worker = self.workers[0] if self.workers else self.worker()
        # Its end was reported before, and lies behind us: the test has sent something.
        worker.partitions.ended.discard(("orders", 0))
        return worker.run_until_idle()

    def leave(self) -> None:
        """The workers leave; the next one is another."""
        while self.workers:
            self.workers.pop().close()

    def retry(self) -> list[str]:
        """Let what is retried be due, and serve it; what came of each."""
        from outbox.consuming.retrying import Retries

        ParkedMessage.objects.filter(state="retrying").update(next_attempt_at="2000-01-01T00:00Z")
        return [str(one) for one in Retries(self.group, ["orders"]).serve_once()]

    def read(self, topic: str, partitions: int = 4) -> list[Any]:
        """All messages of a topic."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": secrets.token_hex(4), "log_level": 0})
        try:
            name = f"{self.prefix}.{topic}"
            wanted = 0
            for number in range(len(consumer.list_topics(name, timeout=60).topics[name].partitions)):
                low, high = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=60)
                wanted += high - low
            found: list[Any] = []
            consumer.assign([TopicPartition(name, number, 0) for number in range(partitions)])
            for _ in range(100):
                found += [one for one in consumer.consume(100, timeout=0.1) if one.error() is None]
                if len(found) >= wanted:
                    break
            return found
        finally:
            consumer.close()


@pytest.fixture
def kafka(transactional_db: None, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kafka]:
    settings.KAFKA_TOPIC_PREFIX = f"t{secrets.token_hex(4)}"
    settings.OUTBOX_POLLING_INTERVAL = 0.05
    monkeypatch.setattr("outbox.kafka_topics.ANSWER_SECONDS", 1.0)
    # Retries come when the test says so.
    monkeypatch.setattr("outbox.consuming.attempting.uniform", lambda low, high: 3600.0)
    found = Kafka(settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_TOPIC_PREFIX)
    yield found
    found.leave()
    unregister(group=found.group)


class Book:
    """What handlers wrote, in a table; a handler that was told to fails after it wrote."""

    def __init__(self) -> None:
        self.fails: Callable[[Message], Exception | None] = lambda message: None
        self.seen: list[Message] = []

    def write(self, message: Message) -> None:
        self.seen.append(message)
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO effects (aggregate, sequence, event) VALUES (%s, %s, %s)",
                [message.aggregate_id, message.sequence, message.id],
            )
        if (exc := self.fails(message)) is not None:
            raise exc

    @property
    def lines(self) -> list[tuple[str, int | None]]:
        """Aggregate and sequence of each effect, in order."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT aggregate, sequence FROM effects ORDER BY nth")
            return cursor.fetchall()

    def of(self, aggregate: str) -> list[int | None]:
        return [sequence for name, sequence in self.lines if name == aggregate]


@pytest.fixture
def book(kafka: Kafka) -> Iterator[Book]:
    """The handler of orders in the group of this test."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE effects (aggregate text, sequence bigint, event text,"
            " nth bigint GENERATED ALWAYS AS IDENTITY, UNIQUE (event) DEFERRABLE INITIALLY DEFERRED)"
        )
    found = Book()
    write: Function = found.write
    handles("orders", "order.placed", group=kafka.group)(write)
    yield found
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE effects")
