"""Nothing is lost and nothing overtakes, whatever dies."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from django.conf import LazySettings
from django.db import connection

from tests.chaos.book import facts, repeated
from tests.outbox.database import database_url

pytestmark = [pytest.mark.feature("H1", "D15"), pytest.mark.django_db(transaction=True)]

BATCH = 10
LANES = 40
LONG = int(os.environ.get("CHAOS_SECONDS", "300"))


@dataclass(frozen=True)
class Delivered:
    mark: str
    aggregate: str
    sequence: int


def storm(folder: Path, **options: Any) -> int:
    """Run the storm against this test's database; returns how many relays were killed or suspended."""
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbits(32)))
    print(f"seed {seed} (CHAOS_SEED)")
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "CHAOS_FOLDER": str(folder),
        "OUTBOX_BATCH_SIZE": str(BATCH),
        "LOG_LEVEL": "ERROR",
        **{name: str(value) for name, value in options.items() if name.isupper()},
    }
    arguments = [f"--{name}={value}" for name, value in options.items() if name.islower()]
    command = [sys.executable, "-m", "tests.chaos.storm", f"--folder={folder}", f"--seed={seed}", *arguments]
    # An old snapshot, as of a long report: dead rows cannot be removed meanwhile.
    connection.ensure_connection()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM outbox_event")
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=options["seconds"] + options.get("drain", 60) + 20,
            check=False,
        )
        cursor.execute("ROLLBACK")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    crashes = [path.read_text() for path in folder.glob("crash.*")]
    assert crashes == []
    return len(facts(folder, "fault"))


def judge(folder: Path, delivered: list[Delivered], faults: int) -> None:
    intents = {mark for mark, _ in facts(folder, "intent")}
    acks = {mark for mark, _ in facts(folder, "ack")}
    undone = {mark for (mark,) in facts(folder, "undone")}
    marks = [one.mark for one in delivered]
    first: dict[str, list[int]] = {}
    for one in delivered:
        numbers = first.setdefault(one.aggregate, [])
        if not numbers or one.sequence > numbers[-1]:
            numbers.append(one.sequence)
    with connection.cursor() as cursor:
        cursor.execute("SELECT aggregate_id, sequence FROM outbox_aggregate WHERE aggregate_type = 'a'")
        last = dict(cursor.fetchall())
    twice = repeated(marks)
    print(
        f"{len(acks)} acknowledged, {len(undone)} rolled back, {len(set(marks))} delivered, {twice} twice,"
        f" {faults} relays killed or suspended"
    )

    assert len(acks) > 100
    assert acks - set(marks) == set(), "lost"
    assert set(marks) & undone == set(), "delivered although rolled back"
    assert set(marks) <= intents, "delivered and never written"
    assert first == {name: list(range(1, count + 1)) for name, count in last.items()}, "out of order, or a gap"
    # At most what was in flight: one chunk that was being delivered, one that waited to be settled.
    assert twice <= faults * 2 * BATCH * LANES


@pytest.mark.timeout(240)
def test_it_loses_nothing_when_relays_die_and_writers_too(tmp_path: Path) -> None:
    faults = storm(
        tmp_path,
        seconds=4,
        writers=3,
        relays=2,
        suspend=4,
        subscriber="tests.chaos.scribe.Scribe",
        OUTBOX_LEASE_SECONDS=3,
    )

    lines = (tmp_path / "delivered.txt").read_text().splitlines()
    delivered = [Delivered(mark, name, int(number)) for mark, name, number in (line.split(" ") for line in lines)]
    judge(tmp_path, delivered, faults)


@pytest.mark.kafka
@pytest.mark.parametrize(
    "seconds", [30, pytest.param(LONG, marks=[pytest.mark.chaos, pytest.mark.timeout(600)], id="long")]
)
def test_it_loses_nothing_on_the_way_to_kafka(tmp_path: Path, settings: LazySettings, seconds: int) -> None:
    prefix = f"chaos{secrets.token_hex(4)}"

    faults = storm(
        tmp_path,
        seconds=seconds,
        writers=8,
        relays=3,
        suspend=8,
        subscriber="outbox.kafka.KafkaSubscriber",
        OUTBOX_LEASE_SECONDS=6,
        KAFKA_MESSAGE_TIMEOUT=1.5,
        KAFKA_TOPIC_PREFIX=prefix,
        KAFKA_BOOTSTRAP_SERVERS=settings.KAFKA_BOOTSTRAP_SERVERS,
    )

    judge(tmp_path, records(settings.KAFKA_BOOTSTRAP_SERVERS, f"{prefix}.chaos"), faults)


def records(servers: str, topic: str) -> list[Delivered]:
    """All records of a topic, each partition in its order."""
    import orjson

    consumer = Consumer({"bootstrap.servers": servers, "group.id": secrets.token_hex(4)})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    left = 0
    for number in partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
        left += high - low
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    found: list[Delivered] = []
    while len(found) < left:
        batch = consumer.consume(1000, timeout=10)
        assert batch, f"{len(found)} of {left} records"
        for record in batch:
            assert record.error() is None
            number = int(dict(record.headers())["sequence"])
            found.append(Delivered(orjson.loads(record.value())["mark"], record.key().decode(), number))
    consumer.close()
    return found
