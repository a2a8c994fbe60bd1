"""The rate limit under full load, counted by Stripe's side: hardly a 429, nearly all of it used, nobody starved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import connection
from pytest_django import Settings

from customers.models import Priority
from customers.services import customer_create
from customers.sync.pokes import Poke, customers_poke
from customers.sync.runner import sync_due_once
from tests.customers.stripe.conftest import StripeSide
from tests.outbox.database import database_url

pytestmark = [pytest.mark.feature("G5"), pytest.mark.django_db(transaction=True)]

KEY = "sk_test_sandbox"


@dataclass(frozen=True, slots=True)
class Load:
    """What Stripe's side saw: calls, those refused, calls a second, and by class how many were served."""

    calls: int
    refused: int
    per_second: float
    served: Counter[int]


def work_wanted(*, rate: int, seconds: float) -> dict[str, int]:
    """More of every class than can be served in the time; the class of each customer by its name."""
    wanted = {Priority.INTERACTIVE: int(rate * seconds), Priority.WEBHOOK: int(rate * seconds / 2), Priority.BULK: 20}
    of: dict[str, int] = {}
    for priority, count in wanted.items():
        pokes = []
        for number in range(count):
            customer = customer_create(name=f"{priority.name} {number}")
            of[customer.name or ""] = priority
            pokes.append(Poke(customer.pk, "tests", priority))
        customers_poke(pokes)
    return of


def load_of(lines: Sequence[tuple[float, int | None]], served: Counter[int]) -> Load:
    """What the lines of a request log (when it came, status) say."""
    refused = sum(status == 429 for _, status in lines)
    spent = max(at for at, _ in lines) - min(at for at, _ in lines)
    return Load(len(lines), refused, (len(lines) - refused) / spent, served)


def names(side: StripeSide) -> list[str]:
    """Of the customers that Stripe has."""
    return [customer["name"] for customer in list(side.sandbox.customers.values())]


def test_it_keeps_to_the_limit_and_starves_nobody(stripe_side: StripeSide, settings: Settings) -> None:
    """Loosely, since it is short; the next one is strict."""
    settings.STRIPE_RATE_LIMIT = 25
    of = work_wanted(rate=25, seconds=8)
    stripe_side.sandbox.limits.switch_on(25, per_endpoint=25)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            sync_due_once(budget=0.5)
        connection.close()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        stop.wait(0.05)
        done = names(stripe_side)
        if len(done) >= 30 and len(set(map(of.get, done))) == len(Priority):
            break
    stop.set()
    for worker in workers:
        worker.join()

    lines = [(line.started_at, line.status) for line in stripe_side.sandbox.request_log]
    load = load_of(lines, Counter(of[name] for name in names(stripe_side)))
    # More on a machine that stands still now and then: both sides are in this process.
    assert load.refused < load.calls / 4, load
    assert load.served[Priority.INTERACTIVE] > load.served[Priority.WEBHOOK] > 0, load
    assert load.served[Priority.BULK] > 0, load
    # Those who wait longest for their turn had it while there was still something more urgent.
    assert load.served[Priority.INTERACTIVE] < 8 * 25, load


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The sandbox in a process of its own, as Stripe is; where it listens."""
    command = [sys.executable, "-m", "zenskar.sandbox.stripe", "--port", "0", "--api-key", KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait(60)


def control(url: str, what: str, document: Any = None) -> Any:
    """Ask the control interface of the sandbox; with a document it is a POST."""
    body = None if document is None else json.dumps(document).encode()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/_sandbox/{what}", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


@pytest.mark.chaos
def test_it_uses_the_limit_whole_for_a_long_time(elsewhere: str) -> None:
    """Two processes of workers; what they have in common is the database."""
    of = work_wanted(rate=25, seconds=30)
    control(elsewhere, "limits", {"per_second": 25})
    environment = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "DJANGO_SETTINGS_MODULE": "zenskar.settings",
        "STRIPE_API_KEY": KEY,
        "STRIPE_API_BASE": elsewhere,
        "STRIPE_RATE_LIMIT": "25",
    }
    command = [sys.executable, "-m", "tests.customers.stripe.working", "30"]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()

    lines = [(line["started_at"], line["status"]) for line in control(elsewhere, "requests")["data"]]
    served = Counter(of[customer["name"]] for customer in control(elsewhere, "customers")["data"])
    load = load_of(lines, served)
    assert load.refused < load.calls / 100, load
    assert load.per_second > 25 * 0.95, load
    assert load.served[Priority.INTERACTIVE] > load.served[Priority.WEBHOOK] > load.served[Priority.BULK] > 0, load
