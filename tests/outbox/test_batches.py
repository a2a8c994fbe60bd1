"""Batches: how many events a subscriber is given at a time, and how long a call may take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from django.conf import LazySettings

from outbox import relaying
from outbox.consuming.inbox import messages_handle
from outbox.errors import OutageError
from outbox.events import Event
from outbox.models import Delivery, Detour, Subscription
from outbox.relay import relay_until_idle
from outbox.relaying import Relay
from outbox.status import EventStatus, events_statuses, wait_for
from outbox.subscribers import Deadline, Failure
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import only, publish_all
from tests.outbox.consuming.conftest import Book, Kafka, book, kafka
from tests.outbox.consuming.test_redriving import record

__all__ = ["book", "kafka"]
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.feature("D5")
def test_the_environment_of_the_pet_store_is_understood() -> None:
    given = {
        "KAFKA_BROKERS": "broker.example:9092",
        "KAFKA_TOPIC_PREFIX": "petstore",
        "OUTBOX_BATCH_SIZE": "7",
        "OUTBOX_POLLING_INTERVAL": "2.5",
        "OUTBOX_MAX_RETRIES": "3",
    }
    program = (
        "import django, json; django.setup();"
        "from outbox.conf import kafka_settings as k, outbox_settings as o; k, o = k(), o();"
        "from outbox.kafka import KafkaSubscriber;"
        "ladder = len(KafkaSubscriber().retry_ladder());"
        "found = [k.bootstrap_servers, k.topic_prefix, o.batch_size, o.polling_interval, o.max_retries, ladder];"
        "print(json.dumps(found))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "OUTBOX_"))}

    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**environment, **given, "DJANGO_SETTINGS_MODULE": "zenskar.settings"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout

    assert json.loads(said.splitlines()[-1]) == ["broker.example:9092", "petstore", 7, 2.5, 3, 3]


@pytest.mark.feature("D12", "D5")
@pytest.mark.parametrize(("size", "calls"), [(None, [100, 100, 50]), (90, [90, 90, 70])])
def test_it_gives_a_lane_one_batch_at_a_time(
    collector: Collector, settings: LazySettings, size: int | None, calls: list[int]
) -> None:
    if size is not None:
        settings.OUTBOX_BATCH_SIZE = size
    publish_all(*["a"] * 250)

    relay_until_idle()

    assert collector.calls == calls
    assert collector.sequences() == {"a": list(range(1, 251))}


@pytest.mark.feature("D5", "D9")
def test_it_retries_as_often_as_the_setting_says(collector: Collector, settings: LazySettings) -> None:
    settings.OUTBOX_MAX_RETRIES = 2
    type(collector).ladder, ladder = None, type(collector).ladder
    collector.refuse = refusing("bad")
    publish_all("bad")

    try:
        for _ in range(3):
            relay_until_idle()
            Delivery.objects.filter(state="retrying").update(next_attempt_at="2000-01-01T00:00Z")
            Detour.objects.filter(due__isnull=False).update(due="2000-01-01T00:00Z")
    finally:
        type(collector).ladder = ladder

    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempts) == ("dead", 3)


@pytest.mark.feature("D5", "D15")
def test_a_relay_looks_by_itself_when_no_call_reaches_it(
    collector: Collector, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.OUTBOX_RELAY_COMPANIONS = []
    settings.OUTBOX_POLLING_INTERVAL = 0.05
    monkeypatch.setattr("outbox.publishing.wake", lambda channel: None)
    monkeypatch.setattr(relaying, "LINGER_SECONDS", 0.0)
    relay = Relay()
    relay.start()
    try:
        statuses = [wait_for(event, "collector", 60) for event in publish_all("a", "b")]
    finally:
        assert relay.stop()

    assert statuses == [EventStatus.PROCESSED] * 2


class Slow(Collector):
    """Takes as long as it is let, and gives up then, as Kafka's subscriber does."""

    call_seconds = 0.2

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        self.calls.append(len(events))
        self.allowed = deadline.remaining()
        while deadline.remaining():
            time.sleep(0.01)
        raise OutageError("Nobody answers.", code="no_answer")


@pytest.mark.feature("D12")
def test_a_batch_has_a_time_limit(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow()
    only(monkeypatch, slow)
    ids = publish_all(*["a"] * 30)

    relay_until_idle()

    statuses = {event: one[0].status for event, one in events_statuses(ids).items()}
    assert slow.calls == [30]
    assert slow.allowed <= 0.2
    # The time was over, which is no fault of an event: all of them wait for the other side.
    assert set(statuses.values()) <= {EventStatus.PENDING, EventStatus.RETRYING, EventStatus.BLOCKED}
    assert Subscription.objects.get().breaker_failures == 1


@pytest.mark.feature("D12", "A11")
def test_a_transaction_of_consumed_messages_has_a_time_limit(
    kafka: Kafka, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.consuming.inbox.LONGEST_SECONDS", 0.0)
    messages = [record(kafka, "a", number) for number in (1, 2, 3)]

    counts = []
    while messages:
        handled = messages_handle(group=kafka.group, topic="orders", worker="w", records=messages)
        counts.append(handled.count)
        del messages[: handled.count]

    assert counts == [1, 1, 1]
    assert book.of("a") == [1, 2, 3]
