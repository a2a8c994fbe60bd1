"""The gate: shared, classed, and never in the way of correctness."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connection

from customers.models import Priority
from customers.sync.ratelimit import Gate, NoToken
from tests.customers.sync.memory import MemoryIntegration


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
def test_it_leaves_tokens_for_the_classes_before(world: object) -> None:
    tokens_of(Priority.BULK, 50)

    webhook = tokens_of(Priority.WEBHOOK, 50)
    interactive = tokens_of(Priority.INTERACTIVE, 50)

    assert webhook >= 2
    assert interactive >= 2
    with pytest.raises(NoToken):
        gate(50).take(Priority.BULK, patience=0)


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_says_when_the_next_token_comes(world: object) -> None:
    tokens_of(Priority.INTERACTIVE, 0.1)

    with pytest.raises(NoToken) as caught:
        gate(0.1).take(Priority.INTERACTIVE, patience=1)

    assert 5 < caught.value.retry_after <= 10


@pytest.mark.feature("G5")
@pytest.mark.django_db
def test_it_waits_for_a_token_within_its_patience(world: object) -> None:
    tokens_of(Priority.INTERACTIVE, 20)
    started = time.monotonic()

    gate(20).take(Priority.INTERACTIVE, patience=5)

    assert time.monotonic() - started < 1


@pytest.mark.feature("G5")
@pytest.mark.django_db(transaction=True)
def test_it_holds_the_limit_over_several_connections(world: object) -> None:
    rate, taken, seconds = 100.0, [0] * 4, 0.5
    ends = time.monotonic() + seconds

    def take_all(index: int) -> None:
        while time.monotonic() < ends:
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
    assert sum(taken) > 5
