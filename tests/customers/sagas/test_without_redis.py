"""Locks and protected changes while Redis is paused, flushed and killed in the middle of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from pytest_django import Settings

from customers.errors import CustomerBusy, EmailTaken
from customers.models import Customer, Saga
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.errors import SagasBusy, SagaUndone
from customers.sagas.running import saga_run
from customers.services import customer_create, customer_update
from operations.locks.held import lock_held
from outbox import wakeup
from outbox.models import StoredEvent
from tests.customers.races import in_threads
from tests.customers.sagas.conftest import nothing_is_left
from tests.customers.sync.conftest import Side
from zenskar.sandbox import processes
from zenskar.sandbox.redis import Redis

pytestmark = [pytest.mark.feature("C9"), pytest.mark.django_db(transaction=True)]


class Weather:
    """A Redis of the test's own, and what happens to it."""

    def __init__(self, server: Redis) -> None:
        self._server = server

    def pause(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def go_on_empty(self) -> None:
        os.kill(self._pid, signal.SIGCONT)
        with redis.Redis.from_url(self._server.url) as client:
            client.flushall()

    def restart(self) -> None:
        self._server.stop(with_signal=signal.SIGKILL)
        self._server.start()

    @property
    def _pid(self) -> int:
        assert self._server.process is not None
        return self._server.process.pid


@pytest.fixture
def weather(tmp_path: Path, settings: Settings) -> Iterator[Weather]:
    server = Redis(port=processes.free_port(), log=tmp_path / "redis.log")
    server.start()
    server.wait_until_ready()
    settings.REDIS_URL = server.url
    # This process's caller has a connection to another Redis.
    before, wakeup._Caller._instance = wakeup._Caller._instance, None
    weather = Weather(server)
    yield weather
    wakeup._Caller._instance = before
    server.stop(with_signal=signal.SIGKILL)


def test_a_protected_change_is_done_once_whatever_happens_to_redis(side: Side, weather: Weather) -> None:
    customer = side.linked(name="Ada", email="ada@example.com")
    refused: list[str] = []

    def others() -> None:
        for attempt in (
            lambda: customer_update(customer_id=customer.pk, changes={"name": "X"}),
            lambda: customer_create(email="new@example.com"),
            lambda: saga_begin(Wanted(action=Saga.Action.DELETE, customer_id=customer.pk)),
        ):
            with pytest.raises(CustomerBusy) as busy:
                attempt()
            refused.append(busy.value.code)

    def storm(name: str) -> None:
        if name == "taken":
            weather.pause()
            others()
        elif name == "decided" and len(refused) == 3:
            weather.go_on_empty()
            others()
        elif name == "resolved":
            weather.restart()
            others()

    wanted = Wanted(action=Saga.Action.UPDATE, customer_id=customer.pk, values={"email": "new@example.com"})
    ended = saga_run(saga_begin(wanted), on_step=storm)

    assert ended is not None
    assert ended.saga.status == "done"
    assert refused == ["customer_busy"] * 9
    customer.refresh_from_db()
    assert (customer.email, customer.version) == ("new@example.com", 2)
    assert side.remote(customer) == {"name": "Ada", "email": "new@example.com"}
    assert len([call for call in side.world.writes() if call.method == "update"]) == 1
    nothing_is_left()


def test_one_of_many_gets_the_e_mail_while_redis_stands_still(side: Side, weather: Weather) -> None:
    outcomes: list[str] = []

    def want() -> None:
        try:
            customer_create(email="ada@example.com", protected=True)
            outcomes.append("created")
        except (CustomerBusy, EmailTaken, SagaUndone, SagasBusy) as exc:
            outcomes.append(exc.code)

    weather.pause()
    errors = in_threads(*[want] * 6)

    assert errors == []
    assert outcomes.count("created") == Customer.objects.count() == StoredEvent.objects.count() == 1
    assert len(side.world.living()) == 1
    nothing_is_left()


def test_a_lock_is_one_holder_s_while_redis_comes_and_goes(weather: Weather) -> None:
    inside, most, entries = [0], [0], [0]

    def work() -> None:
        for _ in range(3):
            with lock_held("integration", "stripe", seconds=30, wait=30):
                inside[0] += 1
                entries[0] += 1
                most[0] = max(most[0], inside[0])
                if entries[0] == 2:
                    weather.pause()
                elif entries[0] == 4:
                    weather.go_on_empty()
                elif entries[0] == 6:
                    weather.restart()
                inside[0] -= 1

    assert in_threads(*[work] * 4) == []

    assert (most, entries) == ([1], [12])
