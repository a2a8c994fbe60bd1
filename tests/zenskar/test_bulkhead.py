"""What hangs takes its share of a web process, never all of it: the real web worker on a real database."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from pytest_django.plugin import DjangoDbBlocker

from customers.models import Customer, Priority, SyncState
from operations.keys import apikey_create
from tests.outbox.database import database_url
from zenskar.bulkhead import Places
from zenskar.sandbox import processes

pytestmark = pytest.mark.feature("A15")

ROOT = Path(__file__).resolve().parent.parent.parent
THREADS = 8
WRITES = 6
MANY = 40
LOCK_SECONDS = 1.0
WAITING_SQL = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@dataclass(frozen=True)
class Answer:
    status: int
    document: Any
    retry_after: str | None
    kind: str | None


@dataclass(frozen=True)
class Web:
    port: int
    authorization: str

    def __call__(self, method: str, path: str, body: Any = None) -> Answer:
        client = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": self.authorization, "Content-Type": "application/json", "Connection": "close"}
        client.request(method, path, None if body is None else json.dumps(body), headers)
        answer = client.getresponse()
        document = json.loads(answer.read())
        client.close()
        kind = answer.getheader("Content-Type")
        return Answer(answer.status, document, answer.getheader("Retry-After"), kind)


class Silent:
    """Another side that takes requests and says nothing."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._opened: list[socket.socket] = []
        self._heard: list[bytes] = []
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def looks(self) -> int:
        """How many asked for a record; ``/readyz`` asks for the list."""
        return sum(line.startswith(b"GET /v1/customers/cus_silent") for line in self._heard)

    def end(self) -> None:
        """Break every connection, and take no more."""
        # Wakes the one who accepts, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._opened:
            client.close()

    def _listen(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            self._opened.append(client)
            self._heard.append(client.recv(65536))


@pytest.fixture(scope="module")
def silent() -> Iterator[Silent]:
    side = Silent()
    yield side
    with suppress(OSError):
        side.end()


@pytest.fixture(scope="module")
def server(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, silent: Silent, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    port, log = processes.free_port(), tmp_path_factory.mktemp("web") / "web.log"
    command = [sys.executable, "-m", "gunicorn", "-c", "zenskar/gunicorn_settings.py", "zenskar.wsgi"]
    command += ["--bind", f"127.0.0.1:{port}", "--workers", "1", "--threads", str(THREADS), "--graceful-timeout", "1"]
    environment = os.environ | {
        "DATABASE_URL": database_url(),
        "DB_LOCK_TIMEOUT": str(LOCK_SECONDS),
        "DJANGO_SETTINGS_MODULE": "zenskar.settings",
        "HTTPS": "false",
        "STRIPE_API_BASE": f"http://127.0.0.1:{silent.port}",
        "STRIPE_API_KEY": "sk_test_silent",
        "WEB_QUEUE_SECONDS": "0.3",
    }
    process = processes.start(command, log=log, env=environment, cwd=ROOT)
    try:
        processes.wait_for_port(process, port, name="web", log=log)
        yield port
    finally:
        processes.stop(process, grace=5)
    assert "Traceback" not in log.read_text()


@pytest.fixture
def web(transactional_db: None, server: int) -> Web:
    key = apikey_create(name="tests", scopes=["customers:read", "customers:write"], rate_limit=0)
    return Web(server, key.authorization)


class Crowd:
    """Many who send the same request, again and again, as long as the block lasts."""

    def __init__(self, send: Callable[[], Answer]) -> None:
        self.answers: list[Answer] = []
        self._send = send
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(MANY)]

    def codes(self) -> set[str]:
        return {answer.document["code"] for answer in list(self.answers)}

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            self.answers.append(self._send())
            self._over.wait(0.1)


def customer(name: str) -> Customer:
    return Customer.objects.create(name=name, email=f"{name}@example.com".lower())


def lock_waiters() -> int:
    with connection.cursor() as cursor:
        cursor.execute(WAITING_SQL)
        return int(cursor.fetchone()[0])


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def results(calls: list[Future[Answer]]) -> list[Answer]:
    done, left = wait(calls, timeout=50)
    assert not left
    return [call.result() for call in done]


def assert_sent_away(answers: list[Answer], codes: set[str]) -> None:
    assert {answer.document["code"] for answer in answers} == codes
    assert {answer.status for answer in answers} == {503}
    assert {answer.kind for answer in answers} == {"application/problem+json"}
    assert None not in {answer.retry_after for answer in answers}


def test_a_locked_row_stops_neither_probes_nor_the_reading_of_others(web: Web) -> None:
    locked, other = customer("Locked"), customer("Other")
    most = 0

    def are_busy() -> bool:
        nonlocal most
        most = max(most, lock_waiters())
        return most >= WRITES and {"record_busy", "too_busy"} <= crowd.codes()

    with psycopg.connect(database_url()) as holder:
        holder.execute("SELECT 1 FROM customers_customer WHERE id = %s FOR UPDATE", [locked.pk])
        with Crowd(lambda: web("PATCH", f"/customers/{locked.pk}", {"name": "New"})) as crowd:
            until(are_busy)
            meanwhile = [web("GET", path) for path in ("/livez", "/readyz", f"/customers/{other.pk}")]

    assert [answer.status for answer in meanwhile] == [200, 200, 200]
    # The other places are those of readers.
    assert most == WRITES
    # The row was still locked when all of them had their answer.
    assert_sent_away(crowd.answers, {"record_busy", "too_busy"})
    assert web("PATCH", f"/customers/{locked.pk}", {"name": "New"}).status == 200


def test_a_full_house_sends_away_and_still_answers_probes(web: Web) -> None:
    someone = customer("Someone")

    with psycopg.connect(database_url()) as holder:
        holder.execute("LOCK TABLE customers_customer IN ACCESS EXCLUSIVE MODE")
        with Crowd(lambda: web("GET", f"/customers/{someone.pk}")) as crowd:
            until(lambda: lock_waiters() >= THREADS and {"record_busy", "too_busy"} <= crowd.codes())
            meanwhile = [web("GET", path) for path in ("/livez", "/livez/", "/readyz")]

    assert [answer.status for answer in meanwhile] == [200, 200, 200]
    assert_sent_away(crowd.answers, {"record_busy", "too_busy"})


def test_a_silent_side_is_waited_for_by_few_requests(web: Web, silent: Silent) -> None:
    linked = customer("Linked")
    SyncState.objects.create(
        customer=linked,
        integration="stripe",
        remote_id="cus_silent",
        livemode=False,
        status=SyncState.Status.IN_SYNC,
        priority=Priority.INTERACTIVE,
        dirty_at=None,
        last_success_at=timezone.now(),
        attempts=0,
    )

    with ThreadPoolExecutor(MANY) as pool:
        looks = [pool.submit(web, "GET", f"/customers/{linked.pk}/sync-health/?live=true") for _ in range(MANY)]
        until(lambda: silent.looks() >= 4)
        meanwhile = [web("GET", path) for path in ("/livez", f"/customers/{linked.pk}")]
        until(lambda: sum(look.done() for look in looks) >= MANY - 4)
        sent_away, asked = [look.result() for look in looks if look.done()], silent.looks()
        silent.end()
        answers = results(looks)

    assert [answer.status for answer in meanwhile] == [200, 200]
    assert asked == 4
    # Some did not even get a place in time, where the machine is slow to send the others away.
    late = {answer.document["code"] for answer in sent_away} & {"too_busy"}
    assert_sent_away(sent_away, {"too_many_live_looks"} | late)
    assert sorted(answer.status for answer in answers) == [200] * 4 + [503] * (MANY - 4)


def test_it_waits_for_a_place_that_becomes_free() -> None:
    places, in_it, go = Places(count=1, queue=1, seconds=30), threading.Event(), threading.Event()

    def holds() -> None:
        places.take(writes=False)
        in_it.set()
        go.wait(60)
        places.leave()

    holder = threading.Thread(target=holds)
    with ThreadPoolExecutor(1) as pool:
        holder.start()
        in_it.wait(60)
        second = pool.submit(places.take, writes=False)
        until(lambda: places._waiting == 1)
        third = places.take(writes=False)
        go.set()
        holder.join()

        assert second.result(30)
    assert not third


def test_it_keeps_places_for_readers() -> None:
    places = Places(count=4, queue=0, seconds=0)

    with ExitStack() as threads:
        # A thread each, all alive at once: identities of threads that ended are given again.
        pools = [threads.enter_context(ThreadPoolExecutor(1)) for _ in range(7)]
        wrote = [pools[number].submit(places.take, writes=True).result() for number in range(4)]
        read = [pools[number].submit(places.take, writes=False).result() for number in (4, 5)]
        pools[0].submit(places.leave).result()
        again = pools[6].submit(places.take, writes=True).result()

    assert wrote == [True, True, True, False]
    assert read == [True, False]
    assert again


def test_it_finds_a_place_again_whose_end_was_not_told() -> None:
    places = Places(count=1, queue=0, seconds=0)

    taken = [places.take(writes=False) for _ in range(3)]

    assert taken == [True, True, True]
