"""The gate: shared, classed, and never in the way of correctness."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from django.db import connection
from pytest_django import Settings

from customers.integrations import IntegrationError, PermanentError, RateLimited, Unreachable
from customers.models import Priority, SyncAccount
from customers.services import customer_create
from customers.sync import ratelimit
from customers.sync.calls import gated
from customers.sync.engine import Outcome, sync_leased
from customers.sync.lease import lease_claim
from customers.sync.ratelimit import Gate, NoToken, Turn
from customers.sync.runner import sync_due_once
from tests.children import child_run
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import Call, MemoryIntegration


def gate(rate: float | None) -> Gate:
    integration = MemoryIntegration()
    integration.rate = rate
    return Gate(integration)


def tokens_of(priority: Priority, rate: float) -> int:
    """How many tokens a class can have at once."""
    count = 0
    while True:
        try:
            gate(rate).take(priority, patience=0)
        except NoToken:
            return count
        count += 1


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_says_when_the_next_token_comes(world: object) -> None:
    tokens_of(Priority.INTERACTIVE, 0.1)

    with pytest.raises(NoToken) as caught:
        gate(0.1).take(Priority.INTERACTIVE, patience=1)

    assert 5 < caught.value.retry_after <= 11


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_takes_a_slow_call_for_one_that_arrived_late(world: object) -> None:
    integration = MemoryIntegration()
    integration.rate, integration.account = 1, "slow"
    tested = Gate(integration)
    turn = Turn(tested.take(Priority.INTERACTIVE, patience=0).moment, late=0.001)
    tested.ended(turn, 0.02)
    usual = SyncAccount.objects.get().starts

    tested.ended(turn, 0.06)

    assert usual == [turn.moment]
    assert SyncAccount.objects.get().starts == [pytest.approx(turn.moment + 0.04, abs=1e-5)]


@pytest.mark.feature("G5")
@pytest.mark.django_db
@pytest.mark.parametrize("refusal", [None, PermanentError("No."), Unreachable("No answer.")])
def test_it_writes_down_a_call_that_started_late_however_it_ended(world: object, refusal: Exception | None) -> None:
    class Late(Gate):
        def take(self, priority: int, *, patience: float) -> Turn:
            return super().take(priority, patience=patience)._replace(late=0.03)

    def call() -> None:
        if refusal is not None:
            raise refusal

    integration = MemoryIntegration()
    integration.rate = 1
    before = time.time()

    with suppress(IntegrationError):
        gated(Late(integration), call, priority=Priority.INTERACTIVE, patience=0)

    assert SyncAccount.objects.get().starts[0] > before + 0.03


@pytest.mark.feature("G5")
@pytest.mark.django_db
@pytest.mark.parametrize("ahead", [20, 86_400])
def test_it_does_not_wait_for_moments_of_a_clock_that_was_put_back(world: object, ahead: float) -> None:
    gate(10).take(Priority.INTERACTIVE, patience=0)
    before = time.time() + ahead
    SyncAccount.objects.update(starts=[before] * 10, due=before)

    turn = gate(10).take(Priority.INTERACTIVE, patience=0)

    assert turn.moment < time.time() + 1


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_starts_no_call_whose_moment_comes_when_the_account_is_closed(world: object) -> None:
    tested = gate(10)
    tested.take(Priority.INTERACTIVE, patience=0)
    moment, wait = tested._reserved(Priority.INTERACTIVE, time.monotonic() + 60)
    gate(10).close(60, "Too many.")

    with pytest.raises(NoToken) as caught:
        tested._awaited(moment, max(wait, 0.1))

    assert (caught.value.code, caught.value.message) == ("closed", "Too many.")


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_pauses_longer_when_it_was_refused_a_moment_ago(world: object) -> None:
    gate(10).take(Priority.INTERACTIVE, patience=0)

    gate(10).close(0.1, "Too many.", again=300)
    once = gate(10).closed_for()
    gate(10).close(0.1, "Too many.", again=300)

    assert 0 <= once <= 0.1
    assert gate(10).closed_for() > 200


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_waits_for_a_token_within_its_patience(world: object) -> None:
    tokens_of(Priority.INTERACTIVE, 20)

    # Without waiting there is none.
    gate(20).take(Priority.INTERACTIVE, patience=30)


@pytest.mark.feature("G5")
@pytest.mark.django_db(transaction=True)
def test_it_holds_the_limit_over_several_connections(world: object) -> None:
    rate, taken = 100.0, [0] * 4
    ends = time.monotonic() + 60

    def take_all(index: int) -> None:
        while sum(taken) < 50 and time.monotonic() < ends:
            try:
                gate(rate).take(Priority.INTERACTIVE, patience=0.05)
                taken[index] += 1
            except NoToken:
                continue
        connection.close()

    threads = [threading.Thread(target=take_all, args=(index,)) for index in range(4)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    burst = rate / 5
    assert sum(taken) <= rate * (time.monotonic() - started) + burst + 1
    assert sum(taken) >= 50


@pytest.mark.feature("G5")
@pytest.mark.django_db(transaction=True)
def test_a_bulk_call_stands_back_behind_people_and_gets_its_turn_all_the_same(world: object) -> None:
    rate, ends = 50.0, time.monotonic() + 60
    got: Counter[Priority] = Counter()

    def take_all(priority: Priority) -> None:
        # Until there were turns enough to compare them, or it will never be.
        while (got.total() < 40 or len(got) < 3) and time.monotonic() < ends:
            with suppress(NoToken):
                gate(rate).take(priority, patience=0.5)
                got[priority] += 1
        connection.close()

    crowd = [Priority.INTERACTIVE] * 6 + [Priority.WEBHOOK] + [Priority.BULK]
    threads = [threading.Thread(target=take_all, args=(priority,)) for priority in crowd]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert got[Priority.INTERACTIVE] > got[Priority.WEBHOOK] > 0
    assert got[Priority.INTERACTIVE] > got[Priority.BULK] > 0


@pytest.mark.feature("G5")
@pytest.mark.django_db
@pytest.mark.parametrize(("priority", "comes_back_in"), [(Priority.WEBHOOK, 20), (Priority.BULK, 30)])
def test_a_class_that_got_nothing_stands_in_line_like_a_person_once(
    world: object, monkeypatch: pytest.MonkeyPatch, priority: Priority, comes_back_in: float
) -> None:
    # Far ahead, so that it does not matter how slow the machine is.
    monkeypatch.setattr(ratelimit, "_SANE", 60.0)
    tested, ends = gate(10), time.monotonic() + 60
    tested.take(Priority.INTERACTIVE, patience=0)

    def people_come() -> None:
        now = time.time()
        SyncAccount.objects.update(starts=[now + 30, now + 20, now + 10], due=now + 55)

    people_come()
    _, wait = tested._reserved(priority, ends)
    people_come()
    with pytest.raises(NoToken) as caught:
        tested.take(priority, patience=1)

    # Behind them, and without waiting for any of them to pass.
    assert wait > 50
    # Then it asks again when but one call, or none, is ahead of it.
    assert caught.value.retry_after == pytest.approx(comes_back_in, abs=5)


@pytest.mark.feature("G5")
@pytest.mark.django_db(transaction=True)
def test_a_person_waits_for_few_calls_behind_a_crowd_of_bulk_ones(
    world: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate, stop, taken = 20.0, threading.Event(), threading.Semaphore(0)
    ahead: list[int] = []
    reserve = Gate._reserved

    def noted(self: Gate, priority: Priority, ends: float) -> tuple[float, float]:
        moment, wait = reserve(self, priority, ends)
        told = time.time()
        if priority == Priority.INTERACTIVE:
            ahead.append(sum(told < one < moment for one in SyncAccount.objects.get().starts))
        return moment, wait

    monkeypatch.setattr(Gate, "_reserved", noted)

    def take_all() -> None:
        while not stop.is_set():
            with suppress(NoToken):
                gate(rate).take(Priority.BULK, patience=0.5)
                taken.release()
        connection.close()

    threads = [threading.Thread(target=take_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        assert taken.acquire(timeout=60)
        gate(rate).take(Priority.INTERACTIVE, patience=60)
    stop.set()
    for thread in threads:
        thread.join()

    # Moments ahead of it when it is told its own, of eight bulk calls that want one.
    assert len(ahead) == 3
    assert max(ahead) <= 2


@pytest.mark.feature("G5")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("processes", "seconds"), [(2, 1.0), pytest.param(4, 10.0, marks=pytest.mark.chaos, id="long")]
)
def test_processes_share_one_bucket_and_use_it_whole_with_redis_away(
    world: object, settings: Settings, processes: int, seconds: float
) -> None:
    rate = 100.0
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    def take_all() -> None:
        taken: list[float] = []
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with suppress(NoToken):
                gate(rate).take(Priority.INTERACTIVE, patience=1)
                # One clock for all processes of a machine.
                taken.append(time.monotonic())
        print(json.dumps(taken))

    with ThreadPoolExecutor(processes) as pool:
        ended = list(pool.map(lambda _: child_run(take_all), range(processes)))
    assert [one.returncode for one in ended] == [0] * processes, ended
    outputs = [json.loads(one.stdout) for one in ended]

    moments = sorted(moment for taken in outputs for moment in taken)
    seen = [sum(1 for other in moments if first <= other < first + 1) for first in moments]
    assert all(outputs)
    assert max(seen) <= rate * 1.02
    if seconds > 5:  # In a second a busy machine may do anything.
        assert len(moments) >= rate * (moments[-1] - moments[0]) * 0.95


@pytest.mark.feature("G5")
@pytest.mark.django_db(transaction=True)
def test_it_synchronises_while_redis_says_nothing(side: Side, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        customers = [customer_create(name=f"Ada {number}") for number in range(5)]
        side.poke()

        assert sync_due_once() == 5

    assert {side.state(customer).status for customer in customers} == {"in_sync"}


@pytest.mark.feature("G5")
@pytest.mark.django_db(transaction=True)
def test_it_starts_no_call_before_the_other_side_said(side: Side) -> None:
    for number in range(3):
        customer_create(name=f"Ada {number}")
    side.poke()
    moments: list[float] = []

    def refuse(call: Call) -> None:
        moments.append(time.monotonic())
        if len(moments) == 1:
            raise RateLimited(retry_after=0.6)

    side.world.before.append(refuse)

    # One at a time: calls that are under way when the answer comes cannot be taken back.
    first = sync_leased(lease_claim(integration="memory", priority=Priority.INTERACTIVE, limit=1, seconds=60)[0])
    while side.dirty():
        sync_due_once(budget=0.05)

    assert first is Outcome.FAILED
    assert len(side.world.living()) == 3
    assert moments[1] - moments[0] >= 0.6
