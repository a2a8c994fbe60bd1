"""What the tests of protected changes share: the world in memory as the other side, and sagas driven by hand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from customers.models import Customer, Saga, SagaStep, SyncAccount, SyncState
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.lease import sagas_claim
from customers.sagas.running import saga_run
from operations.models import Lock
from tests.customers.conftest import Api
from tests.customers.sync.conftest import Side, world
from tests.customers.sync.memory import MemoryIntegration, World

__all__ = ["world"]

PROTECTED = {"X_Use_Integrity_Protection": "true"}


class SecondIntegration(MemoryIntegration):
    """Another side beside the first, with a world of its own; it comes after it."""

    name = "second"
    world = World()


@pytest.fixture
def side(world: World, transactional_db: None) -> Side:
    side = Side(world)
    side.events()
    return side


@pytest.fixture
def second(side: Side, settings: Settings) -> Iterator[World]:
    settings.INTEGRATIONS = {
        **settings.INTEGRATIONS,
        "second": "tests.customers.sagas.conftest.SecondIntegration",
    }
    SecondIntegration.world = World()
    yield SecondIntegration.world
    SecondIntegration.world = World()


@pytest.fixture
def api(transactional_db: None) -> Api:
    return Api("customers:read", "customers:write")


def saga_of(answer: Any) -> Saga:
    """The saga that an answer names."""
    return Saga.objects.get(pk=answer.json()["saga"].rstrip("/").rpartition("/")[2])


def steps_of(saga: Saga) -> list[tuple[str, str]]:
    return [(str(step), step.status) for step in SagaStep.objects.filter(saga=saga).order_by("number")]


def leases_run_out() -> None:
    """As if whoever holds a saga, or a row of one, had been silent for a minute; all accounts are open."""
    long_ago = "2020-01-01T00:00:00Z"
    Saga.objects.open().update(lease_until=long_ago, next_attempt_at=long_ago)
    SyncState.objects.filter(lease_until__isnull=False).update(lease_until=long_ago)
    SyncAccount.objects.update(closed_until=None, failures=0)


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("saga-"):
            thread.join(timeout=60)


def begun(action: Saga.Action, customer: Customer | None = None, **values: Any) -> Saga:
    """A saga as its first worker leaves it, in this thread."""
    wanted = Wanted(action=action, customer_id=customer.pk if customer else None, values=values)
    lease = saga_begin(wanted)
    saga_run(lease)
    return Saga.objects.get(pk=lease.saga_id)


def work_on() -> int:
    """What a worker does with what is due, as long as something is; how many that were."""
    count = 0
    for _ in range(30):
        leases_run_out()
        taken = sagas_claim(limit=10, seconds=60)
        if not taken:
            return count
        for lease in taken:
            saga_run(lease)
            count += 1
    raise AssertionError("It does not come to an end.")


def nothing_is_left(customer: Customer | None = None) -> None:
    """Whatever happened, no lock, no open saga and no row of one is left."""
    assert not Lock.objects.exists()
    assert not Saga.objects.open().exists()
    assert not SyncState.objects.filter(saga__isnull=False, remote_id__isnull=False).exists()
    assert not SyncState.objects.filter(lease_until__isnull=False).exists()
    assert not Saga.objects.exclude(values={}).exists()
