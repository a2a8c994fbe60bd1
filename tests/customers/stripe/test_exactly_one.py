"""Never two customers there for one here: lost answers, kills, keys that were forgotten, workers side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.db import connections
from django.db.models import F
from pytest_django import Settings

from customers.integrations import RetryableError
from customers.models import Customer, SyncAccount, SyncRequest, SyncState
from customers.services import customer_create
from customers.sync.engine import sync_once
from tests.customers.stripe.conftest import SECRET, StripeSide
from tests.customers.sync.conftest import Died, dies_at
from zenskar.sandbox.stripe.clock import Clock
from zenskar.sandbox.stripe.core import StripeSandbox
from zenskar.sandbox.stripe.server import StripeSandboxServer

pytestmark = pytest.mark.feature("G1", "C5")

HOURS = 25
FORTNIGHT = 14 * 24 * 3600
# Where the worker dies, and what is lost of its create; without an answer it comes to no later step.
ENDS = [
    *((step, "") for step in ("taken", "fetched", "decided", "answered", "settled")),
    *((step, lost) for step in ("taken", "fetched", "decided", "nowhere") for lost in ("before", "after")),
]


@pytest.fixture
def yesterday(settings: Settings) -> Iterator[StripeSandbox]:
    """A sandbox whose clock stands still, a day and an hour ago."""
    clock = Clock(frozen_at=time.time() - HOURS * 3600)
    with StripeSandboxServer(webhook_secret=SECRET, clock=clock) as server:
        settings.STRIPE_API_KEY = server.sandbox.api_key
        settings.STRIPE_API_BASE = server.url
        settings.STRIPE_WEBHOOK_SECRETS = [SECRET]
        settings.STRIPE_RATE_LIMIT = 10_000
        settings.SYNC_RETRY_BASE_DELAY = 0
        yield server.sandbox


def a_day_passes(sandbox: StripeSandbox) -> None:
    """On both sides: the database's requests are older, and the sandbox has forgotten its keys."""
    age = timedelta(hours=HOURS)
    SyncRequest.objects.update(first_sent_at=F("first_sent_at") - age, last_sent_at=F("last_sent_at") - age)
    sandbox.clock.advance(HOURS * 3600)


def there(sandbox: StripeSandbox, customer: Customer) -> list[str]:
    return [c["id"] for c in sandbox.customers.values() if c["metadata"].get("zenskar_id") == str(customer.pk)]


@pytest.mark.django_db
@pytest.mark.parametrize(("later", "search_lag"), [(False, 60), (True, 60), (True, FORTNIGHT)])
@pytest.mark.parametrize(("step", "lost"), ENDS)
def test_it_makes_one_customer_whatever_was_lost_wherever_it_died_and_however_late(
    yesterday: StripeSandbox, step: str, lost: str, later: bool, search_lag: float
) -> None:
    side = StripeSide(yesterday)
    side.events()
    yesterday.search.lag = search_lag
    if not later:
        yesterday.clock.advance(HOURS * 3600)
    customer = customer_create(name="Ada")
    side.poke()
    if lost:
        yesterday.faults.add(route="POST /v1/customers", effect="reset", phase=lost)

    try:
        sync_once(side.state(customer).pk, on_step=dies_at(step))
    except Died:
        SyncState.objects.update(lease_until="2020-01-01T00:00:00Z")
    if later:
        a_day_passes(yesterday)
    side.rest()

    assert there(yesterday, customer) == [side.state(customer).remote_id]
    assert len(yesterday.customers) == 1
    assert (SyncState.objects.count(), side.state(customer).status) == (1, "in_sync")


@pytest.mark.django_db
@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("phase", ["before", "after"])
def test_it_makes_one_customer_through_failures_that_stripe_remembers(
    yesterday: StripeSandbox, status: int, phase: str
) -> None:
    yesterday.clock.advance(HOURS * 3600)
    side = StripeSide(yesterday)
    side.events()
    customer = customer_create(name="Ada")
    side.poke()
    yesterday.faults.add(route="POST /v1/customers", effect="status", status=status, phase=phase, times=3)

    for _ in range(8):
        side.sync(customer)
        SyncAccount.objects.update(closed_until=None)
    side.rest()

    assert there(yesterday, customer) == [side.state(customer).remote_id]
    assert len(yesterday.customers) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("phase", ["before", "after"])
def test_it_makes_one_customer_with_workers_that_take_it_from_each_other(yesterday: StripeSandbox, phase: str) -> None:
    """Every worker believes that the lease of the others is over, also in the middle of their calls."""
    yesterday.clock.advance(HOURS * 3600)
    side = StripeSide(yesterday)
    side.events()
    customer = customer_create(name="Ada")
    side.poke()
    state_id = side.state(customer).pk
    yesterday.faults.add(route="POST /v1/customers", effect="reset", phase=phase, times=2)
    yesterday.faults.add(route="POST /v1/customers", effect="delay", seconds=0.05, times=6)
    together, broken = threading.Barrier(4), []

    def work() -> None:
        try:
            together.wait(timeout=60)
            for _ in range(6):
                SyncState.objects.filter(pk=state_id).update(lease_until="2020-01-01T00:00:00Z")
                SyncAccount.objects.update(closed_until=None)
                sync_once(state_id)
        except RetryableError as exc:
            broken.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    SyncState.objects.update(lease_until=None)
    SyncAccount.objects.update(closed_until=None)
    side.rest()

    assert not broken
    assert there(yesterday, customer) == [side.state(customer).remote_id]
    assert len(yesterday.customers) == 1
    assert not SyncRequest.objects.in_flight().exists()
