from __future__ import annotations

import datetime as dt
import http.server
import socket
import threading
from collections.abc import Iterator

import pytest
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from zenskar import probe

pytestmark = pytest.mark.feature("A14")


class _Handler(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PORT", str(server.server_port))
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (400, True), (500, False), (503, False)])
def test_it_asks_the_web_server(port: int, status: int, healthy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Handler, "status", status)

    assert probe.main(["web"]) == (0 if healthy else 1)


def test_it_sees_that_no_web_server_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PORT", str(reserved.getsockname()[1]))

        assert probe.main(["web"]) == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("owner", "age", "healthy"),
    [
        (f"{socket.gethostname()[:60]}:7:abc", 10, True),
        (f"{socket.gethostname()[:60]}:7:abc", 90, False),
        ("another:7:abc", 10, False),
    ],
)
def test_it_looks_for_a_relay_of_this_host_at_work(owner: str, age: int, healthy: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO outbox_subscription (name, max_retries) VALUES ('s', 5) ON CONFLICT DO NOTHING")
        cursor.execute(
            "INSERT INTO outbox_relay (owner, subscription_id, seen_at)"
            " VALUES (%s, 's', clock_timestamp() - %s * interval '1 second')",
            [owner, age],
        )

    assert probe.relay() is healthy


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("worker", "age", "healthy"),
    [
        (f"{socket.gethostname()[:60]}:7:abc", 10, True),
        (f"{socket.gethostname()[:60]}:7:abc", 90, False),
        ("another:7:abc", 10, False),
    ],
)
def test_it_looks_for_a_consumer_of_this_host_that_reads_a_partition(worker: str, age: int, healthy: bool) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO outbox_inbox_partition (consumer_group, topic, partition, reported_by, reported_at)"
            " VALUES ('g', 'orders', 0, %s, clock_timestamp() - %s * interval '1 second')",
            [worker, age],
        )

    assert probe.consumer() is healthy


@pytest.mark.django_db
@pytest.mark.parametrize(("minutes", "healthy"), [(1, True), (6, False)])
def test_it_looks_for_periodic_tasks_that_were_started(minutes: int, healthy: bool) -> None:
    every_second = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(
        name="drain", task="t", interval=every_second, last_run_at=timezone.now() - dt.timedelta(minutes=minutes)
    )

    assert probe.beat() is healthy


def test_it_wants_the_name_of_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["everything"]) == 2
    assert "web|worker|relay|beat|consumer" in capsys.readouterr().err
