"""Against a real broker: workers come, go and are killed while messages flow; each has its effect once, in order."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from django.conf import LazySettings
from django.db import connection

from outbox.models import InboxMessage, ParkedMessage
from tests.outbox.consuming.ledger import GROUP
from tests.outbox.database import database_url

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.kafka,
    pytest.mark.feature("A11", "D9", "H1"),
    pytest.mark.django_db(transaction=True),
]

ROOT = Path(__file__).resolve().parents[3]
MESSAGES, AGGREGATES = 1_000, 40


class Workers:
    """Workers in processes of their own."""

    def __init__(self, prefix: str, said: Path) -> None:
        self.said = said
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url(),
            "DJANGO_SETTINGS_MODULE": "tests.outbox.consuming.working",
            "KAFKA_TOPIC_PREFIX": prefix,
            "KAFKA_SESSION_TIMEOUT": "6",
        }
        self.alive: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        command = [sys.executable, "manage.py", "kafka_worker", "--group", GROUP, "--topics", "orders"]
        with self.said.open("a") as said:
            self.alive.append(subprocess.Popen(command, cwd=ROOT, env=self._environment, stderr=said))

    def until(self, condition: Callable[[], bool], *, seconds: float = 150.0) -> None:
        """Wait; what the workers said besides their work is told when that takes too long.

        Those of the two that are alive may both be starting when a third one is killed, and the group gives its
        partitions away after its session has ended: on a machine that is busy with other things that took 40 s.
        """
        ends = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > ends:
                lines = [line[:600] for line in self.said.read_text().splitlines() if "message_handled" not in line]
                states = [one.poll() for one in self.alive]
                pytest.fail("\n".join([f"only {_effects()} effects, exit statuses {states}", *lines[-30:]]))
            time.sleep(0.05)

    def end(self, one: subprocess.Popen[bytes], with_signal: int) -> int:
        self.alive.remove(one)
        if with_signal == signal.SIGTERM:
            # One that is still starting ends as any process does; it has nothing in hand.
            self.until(lambda: _catches(one.pid, signal.SIGTERM))
        one.send_signal(with_signal)
        return one.wait(60)


@pytest.fixture
def workers(settings: LazySettings, tmp_path: Path) -> Iterator[Workers]:
    settings.KAFKA_TOPIC_PREFIX = f"t{secrets.token_hex(4)}"
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE effects (aggregate text, sequence bigint, event text,"
            " nth bigint GENERATED ALWAYS AS IDENTITY)"
        )
    found = Workers(settings.KAFKA_TOPIC_PREFIX, tmp_path / "said")
    yield found
    for one in list(found.alive):
        found.end(one, signal.SIGKILL)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE effects")


def test_each_message_has_its_effect_once_whatever_dies_and_whoever_joins(
    workers: Workers, settings: LazySettings
) -> None:
    topic = f"{settings.KAFKA_TOPIC_PREFIX}.orders"
    servers = settings.KAFKA_BOOTSTRAP_SERVERS
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(topic, 6, 1)])[topic].result(10)
    chance = random.Random(4)
    _produce(servers, topic, 0, MESSAGES // 2)
    workers.start()
    workers.start()
    clean: list[int] = []
    for turn in range(3):
        workers.until(lambda turn=turn: _effects() > (turn + 1) * MESSAGES // 8)  # type: ignore[misc]
        if turn == 1:
            _produce(servers, topic, MESSAGES // 2, MESSAGES)
        victim = chance.choice(workers.alive)
        if turn % 2:
            # In good order; what it had done is committed, and the others take over at once.
            clean.append(workers.end(victim, signal.SIGTERM))
        else:
            workers.end(victim, signal.SIGKILL)
        workers.start()

    workers.until(lambda: _effects() >= MESSAGES)
    time.sleep(1)

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), count(DISTINCT event) FROM effects")
        assert cursor.fetchone() == (MESSAGES, MESSAGES)
        cursor.execute(
            "SELECT count(*) FROM (SELECT sequence, lag(sequence, 1, 0::bigint)"
            " OVER (PARTITION BY aggregate ORDER BY nth) AS before FROM effects) x WHERE sequence <> before + 1"
        )
        assert cursor.fetchone() == (0,)
    assert clean == [0]
    assert InboxMessage.objects.filter(outcome="success").count() == MESSAGES
    assert not ParkedMessage.objects.exclude(code="worker_died").exists()


def _produce(servers: str, topic: str, first: int, last: int) -> None:
    """Each message twice, as a producer that was killed before it heard of the acknowledgement sends it."""
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
    for number in range(first, last):
        name, sequence = f"o-{number % AGGREGATES}", number // AGGREGATES + 1
        headers = {
            "ce_id": f"{name}-{sequence}",
            "ce_type": "order.placed",
            "ce_subject": name,
            "aggregate_type": "order",
            "sequence": str(sequence),
        }
        for _ in range(2):
            producer.produce(topic, b"{}", name, headers=list(headers.items()))
        producer.poll(0)
    assert producer.flush(30) == 0


def _effects() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM effects")
        return int(cursor.fetchone()[0])


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal by now."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)
