from __future__ import annotations

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from django.db import connection

from outbox.consuming.hand import Hand
from outbox.consuming.inbox import messages_handle
from outbox.consuming.messages import Message
from outbox.errors import OutageError
from outbox.models import InboxMessage, ParkedMessage
from tests.outbox.consuming.conftest import Book, Kafka
from tests.outbox.consuming.test_redriving import record

pytestmark = [pytest.mark.feature("A11", "H1")]


def test_two_workers_that_hold_one_partition_handle_each_message_once(kafka: Kafka, book: Book) -> None:
    """As they may for a moment while a group is rebalanced."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(message: Message) -> None:
        begun.set()
        go_on.wait(60)

    book.fails = wait
    records = [record(kafka, "a", sequence) for sequence in (1, 2, 3)]
    outcomes: dict[str, object] = {}

    def work(worker: str) -> None:
        done = messages_handle(group=kafka.group, topic="orders", worker=worker, records=records)
        outcomes[worker] = dict(done.outcomes)
        connection.close()

    first = threading.Thread(target=work, args=["first"])
    second = threading.Thread(target=work, args=["second"])
    first.start()
    assert begun.wait(60)
    second.start()
    go_on.set()
    first.join(60)
    second.join(60)

    assert outcomes == {"first": {"success": 3}, "second": {"ignored": 3}}
    assert book.of("a") == [1, 2, 3]
    assert InboxMessage.objects.count() == 3


@pytest.mark.feature("H2")
def test_it_halves_until_a_message_that_kills_its_worker_stands_alone_and_parks_it(kafka: Kafka, book: Book) -> None:
    killer, offsets = 37, list(range(1, 101))
    deaths = 0
    for life in range(40):
        hand = Hand(kafka.group, f"worker-{life}")
        while offsets:
            count, died = hand.take("orders", 0, offsets)
            taken = offsets[:count]
            if killer in taken and not died:
                deaths += 1
                break
            messages_handle(
                group=kafka.group,
                topic="orders",
                worker=f"worker-{life}",
                records=[record(kafka, f"o{offset}", offset) for offset in taken],
                died=died,
            )
            del offsets[:count]
        if not offsets:
            break

    parked = ParkedMessage.objects.get()
    assert deaths <= 8
    assert not offsets
    assert (parked.offset, parked.state, parked.code, parked.attempts) == (killer, "retrying", "worker_died", 1)
    assert len(book.lines) == 99


class _Refuses:
    """A consumer that refuses to seek, as while the fetcher of a partition is still starting."""

    def __init__(self, consumer: Any, times: int) -> None:
        self._consumer, self._left = consumer, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def seek(self, partition: Any) -> None:
        if self._left:
            self._left -= 1
            raise KafkaException(KafkaError(KafkaError._STATE))
        self._consumer.seek(partition)


def test_nothing_is_passed_by_when_the_broker_refuses_to_go_back(
    kafka: Kafka, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler needs is away, with messages in hand that can't be fetched again at once."""
    monkeypatch.setattr("outbox.consuming.worker.RECOVERY_SECONDS", (0.0, 0.0))
    away = [OutageError("The bank does not answer.", code="bank_away")] * 2
    book.fails = lambda message: away.pop() if away else None
    worker = kafka.worker()
    worker.partitions.consumer = _Refuses(worker.partitions.consumer, times=3)
    for sequence in range(1, 6):
        kafka.send("a", sequence)

    worker.run(lambda: len(book.lines) == 5)

    assert book.of("a") == [1, 2, 3, 4, 5]
