"""On a real broker that stops under load, with producers, relays and consumers that die, and a Redis that forgets.

Nothing is lost, nothing overtakes, and each message has its effect once.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from outbox.models import InboxMessage, ParkedMessage
from tests.chaos.book import facts
from tests.chaos.ledger import GROUP
from tests.chaos.test_storm import Delivered, judge, records, storm
from tests.outbox.database import database_url
from zenskar.sandbox.kafka_broker import KafkaBroker

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(180),
    pytest.mark.feature("H1", "D11", "D13", "A11"),
    pytest.mark.django_db(transaction=True),
]

ROOT = Path(__file__).resolve().parents[2]


class Consumers(threading.Thread):
    """Consumers in processes of their own; every few seconds one of them is killed, and another takes its place."""

    def __init__(self, environment: dict[str, str], *, every: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._environment = {
            **environment,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.consuming",
            "KAFKA_SESSION_TIMEOUT": "6",
        }
        self._every, self._dice = every, random.Random(seed)
        self._over = threading.Event()
        self._alive = [self._begin(), self._begin()]
        self.killed = 0

    def run(self) -> None:
        while not self._over.wait(self._dice.uniform(0.7, 1.3) * self._every):
            self._end(self._alive.pop(self._dice.randrange(len(self._alive))))
            self.killed += 1
            self._alive.append(self._begin())

    def calm(self) -> None:
        """Kill no more of them."""
        self._over.set()
        self.join()

    def stop(self) -> None:
        self.calm()
        for one in self._alive:
            self._end(one)

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "manage.py", "kafka_worker", "--group", GROUP, "--topics", "chaos"]
        return subprocess.Popen(command, cwd=ROOT, env=self._environment, stderr=subprocess.DEVNULL)

    @staticmethod
    def _end(one: subprocess.Popen[bytes]) -> None:
        one.send_signal(signal.SIGKILL)
        one.wait(10)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of its own, since it is stopped."""
    found = KafkaBroker(tmp_path / "kafka")
    found.start()
    yield found
    found.stop(with_signal=signal.SIGKILL)


@pytest.fixture
def ledger() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE chaos_ledger (mark text, aggregate text, sequence bigint,"
            " nth bigint GENERATED ALWAYS AS IDENTITY)"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE chaos_ledger")


@pytest.mark.parametrize(
    ("seconds", "away", "killed"),
    [(18, 4, 8), pytest.param(150, 60, 100, marks=[pytest.mark.chaos, pytest.mark.timeout(900)], id="long")],
)
def test_it_loses_nothing_and_repeats_no_effect(
    tmp_path: Path, broker: KafkaBroker, ledger: None, seconds: int, away: int, killed: int
) -> None:
    seed = int(os.environ.get("CHAOS_SEED", secrets.randbits(32)))
    prefix = f"chaos{secrets.token_hex(4)}"
    kafka = {"KAFKA_TOPIC_PREFIX": prefix, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
    assert broker.process is not None
    environment = {**os.environ, "DATABASE_URL": database_url(), "LOG_LEVEL": "ERROR", **kafka}
    consumers = Consumers(environment, every=seconds / 3 if seconds < 60 else 10.0, seed=seed)
    consumers.start()
    try:
        faults = storm(
            tmp_path,
            seconds=seconds,
            writers=4,
            relays=3,
            suspend=8,
            subscriber="tests.chaos.dying.DyingKafka",
            broker=broker.process.pid,
            away=away,
            flush=1,
            # The breaker tries at the latest half a minute after the broker is back.
            drain=120,
            OUTBOX_LEASE_SECONDS=6,
            KAFKA_MESSAGE_TIMEOUT=1.5,
            REDIS_URL=settings.REDIS_URL,
            CHAOS_SEED=seed,
            **kafka,
        )
        consumers.calm()
        delivered = records(broker.bootstrap_servers, f"{prefix}.chaos")
        lines = _lines(wanted=len({one.mark for one in delivered}))
    finally:
        consumers.stop()

    judge(tmp_path, delivered, faults)
    fates = [fault[0] for fault in facts(tmp_path, "fault")]
    print(
        f"{fates.count('killed')} relays killed, {fates.count('acknowledged')} right after an acknowledgement,"
        f" {consumers.killed} consumers killed, {len(lines)} effects"
    )
    assert fates.count("killed") >= killed
    assert fates.count("acknowledged") >= 1
    assert consumers.killed >= 2
    assert sorted(one.mark for one in lines) == sorted({one.mark for one in delivered}), "lost, or twice"
    by_aggregate: dict[str, list[int]] = {}
    for one in lines:
        by_aggregate.setdefault(one.aggregate, []).append(one.sequence)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_aggregate.values()), "out of order"
    assert not ParkedMessage.objects.exclude(state="resolved").exists()
    assert InboxMessage.objects.exclude(outcome="success").count() == 0


def _lines(*, wanted: int) -> list[Delivered]:
    """The ledger, once it has so many lines and no more come."""
    ends = time.monotonic() + 60
    while (found := _read()) and len(found) < wanted:
        assert time.monotonic() < ends, f"{len(found)} effects of {wanted}"
        time.sleep(0.2)
    time.sleep(1.0)
    return _read()


def _read() -> list[Delivered]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT mark, aggregate, sequence FROM chaos_ledger ORDER BY nth")
        return [Delivered(*row) for row in cursor.fetchall()]
