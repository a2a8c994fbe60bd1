"""The rate limit under full load, counted by Stripe's side: hardly a 429, nearly all of it used, nobody starved."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass

import pytest
from django.db import connection
from pytest_django import Settings

from customers.models import Priority
from customers.services import customer_create
from customers.sync.pokes import Poke, customers_poke
from customers.sync.runner import sync_due_once
from tests.customers.stripe.conftest import StripeSide

pytestmark = [pytest.mark.feature("G5"), pytest.mark.django_db(transaction=True)]


@dataclass(frozen=True, slots=True)
class Load:
    """What Stripe's side saw: calls, those refused, calls a second, and by class how many were served."""

    calls: int
    refused: int
    per_second: float
    served: Counter[int]


def full_load(side: StripeSide, *, rate: int, seconds: float, at_least: float = 0.0) -> Load:
    """More of every class than can be served in the time; the limit of the other side is ours.

    With ``at_least`` it ends after that many seconds, as soon as each class was served.
    """
    wanted = {Priority.INTERACTIVE: int(rate * seconds), Priority.WEBHOOK: int(rate * seconds / 2), Priority.BULK: 20}
    of: dict[str, int] = {}
    for priority, count in wanted.items():
        pokes = []
        for number in range(count):
            customer = customer_create(name=f"{priority.name} {number}")
            of[customer.name or ""] = priority
            pokes.append(Poke(customer.pk, "tests", priority))
        customers_poke(pokes)
    side.sandbox.limits.switch_on(rate, per_endpoint=rate)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sync_due_once(budget=0.5)
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    began = time.monotonic()
    while (spent := time.monotonic() - began) < seconds:
        stop.wait(0.05)
        if at_least and spent >= at_least and len(set(map(of.get, names(side)))) == len(wanted):
            break
    stop.set()
    for worker in workers:
        worker.join()
    lines = list(side.sandbox.request_log)
    refused = sum(line.status == 429 for line in lines)
    spent = max(line.started_at for line in lines) - min(line.started_at for line in lines)
    served = Counter(of[name] for name in names(side))
    return Load(len(lines), refused, (len(lines) - refused) / spent, served)


def names(side: StripeSide) -> list[str]:
    """Of the customers that Stripe has."""
    return [customer["name"] for customer in list(side.sandbox.customers.values())]


def test_it_keeps_to_the_limit_and_starves_nobody(stripe_side: StripeSide, settings: Settings) -> None:
    """Loosely, since it is short and others use the machine; the next one is strict."""
    settings.STRIPE_RATE_LIMIT = 25

    load = full_load(stripe_side, rate=25, seconds=8, at_least=2)

    assert load.refused <= 2 + load.calls // 20, load
    assert load.per_second > 8, load
    assert load.served[Priority.INTERACTIVE] > load.served[Priority.WEBHOOK] > 0, load
    assert load.served[Priority.BULK] > 0, load
    # Those who wait longest for their turn had it while there was still something more urgent.
    assert load.served[Priority.INTERACTIVE] < 8 * 25, load


@pytest.mark.chaos
def test_it_uses_the_limit_whole_for_a_long_time(stripe_side: StripeSide, settings: Settings) -> None:
    settings.STRIPE_RATE_LIMIT = 25

    load = full_load(stripe_side, rate=25, seconds=30)

    assert load.refused < load.calls / 100, load
    assert load.per_second > 25 * 0.95, load
    assert load.served[Priority.INTERACTIVE] > load.served[Priority.WEBHOOK] > load.served[Priority.BULK] > 0, load
