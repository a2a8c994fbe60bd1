from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.core import checks
from django.core.management import CommandError, call_command
from django.db import connection

from dbresilience.postgresql.borrowing import Borrowing
from dbresilience.postgresql.stats import open_pools
from outbox import relaying
from outbox.checks import check_lanes, check_subscribers
from outbox.models import Lane, RelayProcess
from outbox.relaying import Relay
from outbox.status import EventStatus, wait_for
from outbox.tasks import drain
from tests.outbox.collecting import Collector
from tests.outbox.conftest import publish_all
from tests.outbox.database import database_url

pytestmark = [pytest.mark.feature("A10")]

calls: list[int] = []


def companion_once() -> int:
    calls.append(1)
    return 0


@pytest.fixture
def relay(collector: Collector, settings: LazySettings) -> Iterator[Relay]:
    settings.OUTBOX_RELAY_COMPANIONS = ["tests.outbox.test_command.companion_once"]
    calls.clear()
    made = Relay()
    made.start()
    yield made
    assert made.stop()


def test_it_delivers_what_is_published_while_it_runs_and_runs_companions(collector: Collector, relay: Relay) -> None:
    statuses = [wait_for(event, "collector", 60) for event in publish_all("a", "b", "a")]

    assert statuses == [EventStatus.PROCESSED] * 3
    assert collector.sequences() == {"a": [1, 2], "b": [1]}
    assert calls


def test_it_gives_its_lanes_back_when_it_stops(collector: Collector, relay: Relay) -> None:
    (event,) = publish_all("a")
    wait_for(event, "collector", 60)
    held = Lane.objects.exclude(owner="").count()

    relay.stop()

    assert held == 64
    assert not Lane.objects.exclude(owner="").exists()
    assert not RelayProcess.objects.exists()


@pytest.mark.feature("B2")
def test_its_threads_give_their_connections_back_after_each_pass(collector: Collector, relay: Relay) -> None:
    (event,) = publish_all("a")
    wait_for(event, "collector", 60)
    begun, ends = time.monotonic(), time.monotonic() + 60
    connection.close()

    # All of them at once, at some moment after a pass of each.
    while any(loan.since < begun for loan in _loans()) and time.monotonic() < ends:
        time.sleep(0.005)

    assert not any(loan.since < begun for loan in _loans())


def _loans() -> list[Borrowing]:
    return [loan for pool in open_pools() for loan in pool.borrowings()]


def test_a_thread_survives_a_lost_connection(
    collector: Collector, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = publish_all("a")
    wait_for(first, "collector", 60)
    monkeypatch.setattr(relaying, "RECOVERY_SECONDS", (0.01, 0.05))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    (second,) = publish_all("a")

    assert wait_for(second, "collector", 60) is EventStatus.PROCESSED


def test_beat_drains_as_well(collector: Collector) -> None:
    publish_all("a", "b")

    count = drain()

    assert count == 2
    assert collector.sequences() == {"a": [1], "b": [1]}


def test_the_command_drains_once(collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    publish_all("a", "b")

    call_command("relay", "--once")

    assert "2 events delivered" in capsys.readouterr().out


def test_the_command_refuses_an_unknown_subscriber(collector: Collector) -> None:
    with pytest.raises(CommandError, match="nobody"):
        call_command("relay", "--subscriber", "nobody")


@pytest.mark.django_db(transaction=True)
def test_the_command_ends_in_good_order_on_a_signal() -> None:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "relay", "--subscriber", "kafka"],
        env={**os.environ, "DATABASE_URL": database_url()},
    )
    ends = time.monotonic() + 60
    while not RelayProcess.objects.exists() and time.monotonic() < ends and process.poll() is None:
        time.sleep(0.05)
    seen = RelayProcess.objects.exists()
    process.send_signal(signal.SIGTERM)

    assert seen
    assert process.wait(timeout=60) == 0
    assert not Lane.objects.exclude(owner="").exists()


@pytest.mark.feature("H1")
def test_it_refuses_another_function_of_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    before = check_lanes()
    monkeypatch.setattr("outbox.checks.lane_of", lambda kind, name: (hash(kind) + hash(name)) % 64 + 1)

    assert before == []
    assert [message.id for message in check_lanes()] == ["outbox.E001"]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"OUTBOX_SUBSCRIBERS": ["tests.outbox.collecting.Collector"]}, []),
        ({"OUTBOX_LEASE_SECONDS": "soon"}, ["outbox.E002"]),
        ({"OUTBOX_SUBSCRIBERS": ["tests.outbox.collecting.Nobody"]}, ["outbox.E003"]),
        ({"OUTBOX_SUBSCRIBERS": ["tests.outbox.collecting.Collector"] * 2}, ["outbox.E004"]),
        ({"OUTBOX_SUBSCRIBERS": ["collections.Counter"]}, ["outbox.E004"]),
        (
            {"OUTBOX_SUBSCRIBERS": ["outbox.kafka.KafkaSubscriber"], "KAFKA_MESSAGE_TIMEOUT": 29},
            ["outbox.E005"],
        ),
    ],
)
def test_it_checks_its_settings(settings: LazySettings, values: dict[str, object], found: list[str]) -> None:
    for name, value in values.items():
        setattr(settings, name, value)

    messages: list[checks.CheckMessage] = check_subscribers()

    assert [message.id for message in messages] == found


@pytest.mark.feature("D7")
@pytest.mark.parametrize("port", ["taken", "70000"])
def test_it_says_in_one_line_that_it_cannot_serve_its_figures(collector: Collector, port: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1] if port == "taken" else port

        with pytest.raises(CommandError, match="--metrics-port: "):
            call_command("relay", "--metrics-port", str(number))
