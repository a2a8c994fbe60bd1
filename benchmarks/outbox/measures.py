"""What is measured: functions that prepare, run once and return figures."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, TopicPartition
from django.db import connection, transaction

from benchmarks.outbox import hand, load
from benchmarks.outbox.peers import PEERS, peer_drain
from customers.models import Customer
from operations.long_actions.planning import operation_create
from operations.long_actions.runner import operations_run_once
from operations.long_actions.steering import operation_steer
from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.kafka import KafkaSubscriber
from outbox.publishing import publish, publish_many
from outbox.relay import SubscriberRelay, relay_once
from outbox.subscribers import Deadline, Failure, Subscriber
from outbox.subscriptions import subscription_ensure


def drain_ours(kind: str, events: int, *, old: int = 0) -> float:
    """Events per second of one relay, sequencing included, into Kafka's mock."""
    load.forget_all()
    subscriber = KafkaSubscriber()
    if old:
        load.fill_old(old)
        with connection.cursor() as cursor:
            cursor.execute("SELECT last_value FROM outbox_log_position_seq")
            (head,) = cursor.fetchone()
        subscription_ensure(subscriber)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE outbox_lane SET cursor = %s", [head])
    else:
        subscription_ensure(subscriber)
    load.fill(load.keys(kind, events))
    started = time.perf_counter()
    done = relay_once(subscriber, seconds=600)
    seconds = time.perf_counter() - started
    subscriber.close()
    assert done >= events, done
    return events / seconds


def drain_hand(kind: str, events: int) -> float:
    """The same by the loop by hand."""
    load.forget_all()
    subscription_ensure(KafkaSubscriber())
    load.fill(load.keys(kind, events))
    started = time.perf_counter()
    done = hand.drain()
    assert done == events, done
    return events / (time.perf_counter() - started)


def drain_peer(events: int) -> float:
    """The same by django-outbox-pattern 3.2.1, in an environment of its own, into the same mock."""
    pattern = next(peer for peer in PEERS if peer.name == "django-outbox-pattern")
    return peer_drain(pattern, "uniform", sink="kafka", events=events).rate


class Nothing(Subscriber):
    """Takes everything, or refuses everything for good."""

    name = "nothing"
    refuses = False

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        if not self.refuses:
            return []
        first = {event.aggregate: event for event in reversed(events)}
        return [Failure(event, ErrorClass.PERMANENT, "refused", "no") for event in first.values()]


def drain_nothing(events: int, kind: str = "uniform", *, kept: bool = False) -> float:
    """Events per second into nothing, sequencing included, with or without an attempt kept of each."""
    load.forget_all()
    subscriber = Nothing()
    subscription_ensure(subscriber)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_subscription SET keep_successes = %s", [kept])
    load.fill(load.keys(kind, events))
    started = time.perf_counter()
    done = relay_once(subscriber, seconds=600)
    assert done >= events, done
    return events / (time.perf_counter() - started)


def replay(count: int) -> float:
    """Seconds from the start of the operation until everything is delivered and every outcome is written."""
    load.forget_all()
    subscriber = Nothing()
    subscription_ensure(subscriber)
    subscriber.refuses = True
    load.fill([f"d{n}" for n in range(count)])
    relay_once(subscriber, seconds=600)
    subscriber.refuses = False
    load.settle()
    operation = operation_create(kind="outbox.replay", filter={}, reason="benchmark", actor="benchmark")
    assert operation.eligible == count, operation.eligible
    started = time.perf_counter()
    operation = operation_steer(verb="start", operation_id=operation.pk, actor="benchmark")
    over = threading.Event()

    def deliver() -> None:
        relay = SubscriberRelay(subscriber, resident=True)
        while not over.is_set():
            if not relay.step():
                time.sleep(0.01)
        relay.leave()
        connection.close()

    thread = threading.Thread(target=deliver)
    thread.start()
    while operation.state == "running" and time.perf_counter() - started < 300:
        if not operations_run_once():
            time.sleep(0.05)
        operation.refresh_from_db()
    seconds = time.perf_counter() - started
    over.set()
    thread.join()
    assert (operation.state, operation.succeeded) == ("completed", count), (operation.state, operation.succeeded)
    return seconds


def update(count: int, *, with_event: bool) -> float:
    """Microseconds of a transaction that changes a customer, with or without its event."""
    load.forget_all()
    Customer.objects.all().delete()
    rows = [Customer(name=f"Customer {n}", email=f"c{n}@example.com") for n in range(500)]
    Customer.objects.bulk_create(rows)
    ids = list(Customer.objects.values_list("pk", flat=True))
    load.settle()
    started = time.perf_counter()
    for number in range(count):
        key = ids[number % len(ids)]
        with transaction.atomic():
            customer = Customer.objects.select_for_update().get(pk=key)
            customer.name = f"Changed {number}"
            customer.version += 1
            customer.save(update_fields=["name", "version", "updated_at"])
            if with_event:
                publish(load.new(str(key)))
    return (time.perf_counter() - started) / count * 1e6


def publish_single(count: int) -> float:
    """Microseconds per event, one event and one transaction each."""
    load.forget_all()
    names = load.keys("uniform", count)
    started = time.perf_counter()
    for name in names:
        with transaction.atomic():
            publish(load.new(name))
    return (time.perf_counter() - started) / count * 1e6


def publish_bulk(count: int) -> float:
    """Microseconds per event, a thousand events per call and transaction."""
    load.forget_all()
    names = load.keys("uniform", count)
    started = time.perf_counter()
    for start in range(0, count, 1_000):
        with transaction.atomic():
            publish_many([load.new(name) for name in names[start : start + 1_000]])
    return (time.perf_counter() - started) / count * 1e6


def latency(seconds: float, rate: float, command: list[str]) -> dict[str, float]:
    """Milliseconds from commit to a Kafka consumer, at ``rate`` events per second, while ``command`` relays."""
    load.forget_all()
    subscriber = KafkaSubscriber()
    subscription_ensure(subscriber)
    # The topic must be there before it is measured, and the relay warm.
    load.fill(["warm"] * 20)
    relay_once(subscriber)
    subscriber.close()
    servers = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench", "fetch.wait.max.ms": 10, "log_level": 0})
    topic = "zenskar.customers"
    ends = []
    for number in consumer.list_topics(topic, timeout=5).topics[topic].partitions:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=5)
        ends.append(TopicPartition(topic, number, high))
    consumer.assign(ends)
    relay = subprocess.Popen(command)
    arrived: dict[str, float] = {}
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            for record in consumer.consume(100, timeout=0.005):
                if record.error() is None:
                    arrived.setdefault(record.key().decode(), time.perf_counter())

    reader = threading.Thread(target=read)
    reader.start()
    committed: dict[str, float] = {}
    try:
        _commit("wait", committed)
        while "wait" not in arrived and relay.poll() is None:
            time.sleep(0.05)
        begun = time.perf_counter()
        count = int(seconds * rate)
        for number in range(count):
            while time.perf_counter() < begun + number / rate:
                time.sleep(0.0005)
            _commit(f"k{number}", committed)
        ends_at = time.perf_counter() + 10
        while len(arrived) < count + 1 and time.perf_counter() < ends_at:
            time.sleep(0.05)
    finally:
        stop.set()
        reader.join()
        consumer.close()
        relay.terminate()
        relay.wait(timeout=40)
    del committed["wait"]
    waits = sorted((arrived[key] - moment) * 1e3 for key, moment in committed.items() if key in arrived)
    assert len(waits) == count, f"{len(waits)} of {count} arrived"
    return {"p50": statistics.median(waits), "p99": waits[int(len(waits) * 0.99)], "max": waits[-1]}


def _commit(key: str, committed: dict[str, float]) -> None:
    with transaction.atomic():
        publish(load.new(key))
    committed[key] = time.perf_counter()


RELAY = [sys.executable, "manage.py", "relay", "--subscriber", "kafka"]
DRAIN = """
import time
import django
django.setup()
from operations.long_actions.planning import operation_create
from operations.long_actions.runner import operations_run_once
from operations.long_actions.steering import operation_steer
from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.kafka import KafkaSubscriber
from outbox.relay import SubscriberRelay, relay_once
from outbox.subscribers import Deadline, Failure, Subscriber
subscriber = KafkaSubscriber()
while True:
    began = time.monotonic()
    relay_once(subscriber)
    time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
"""
BEAT = [sys.executable, "-c", DRAIN]


def console(events: int) -> float:
    """Milliseconds until the console's list of events is there, with that many events."""
    from django.contrib.auth import get_user_model
    from django.test import Client

    load.forget_all()
    subscription_ensure(KafkaSubscriber())
    load.fill_old(events)
    user, _ = get_user_model().objects.get_or_create(username="bench", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        answer = client.get("/admin/outbox/storedevent/")
        times.append((time.perf_counter() - started) * 1e3)
        assert answer.status_code == 200, answer.status_code
    return statistics.median(times[1:])


def interleaved(runs: int, **candidates: Callable[[], float]) -> dict[str, list[float]]:
    """Run each candidate ``runs`` times, in turn."""
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(runs):
        for name, function in candidates.items():
            found[name].append(function())
    return found
