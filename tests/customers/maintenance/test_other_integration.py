"""Comparing, importing and repairing know nothing of Stripe: the same with an integration in memory."""

from __future__ import annotations

import time

import pytest
from pytest_django import Settings

from customers.models import Customer, Drift, SyncState
from operations.long_actions.planning import operation_create
from operations.long_actions.runner import operation_run
from operations.long_actions.steering import operation_cancel, operation_start
from operations.models import Operation
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import MemoryIntegration

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.feature("G6", "G5")]


@pytest.fixture(autouse=True)
def old_enough(settings: Settings) -> None:
    settings.RECONCILE_GRACE = 0
    settings.RECONCILE_MIN_AGE = 0


def carried_out(kind: str = "customers.reconcile", **filter: object) -> Operation:
    operation = operation_create(kind=kind, filter={"integration": "memory", **filter}, reason="see", actor="user:ann")
    operation_start(operation_id=operation.pk, actor="user:ann")
    return operation_run(operation.pk, seconds=60)


def test_it_compares_page_by_page_and_mends(side: Side) -> None:
    people = [side.linked(name=f"Ada {number}") for number in range(7)]
    side.world.edit(side.state(people[0]).remote_id or "", name="Countess")
    side.world.add(name="Eve")
    side.world.remove(side.state(people[1]).remote_id or "")
    side.world.messages.clear()
    side.world.calls.clear()

    operation = carried_out()
    side.rest()

    assert (operation.state, operation.failed) == ("completed", 0)
    # Seven living records, three on a page, in windows of age; of the first window three pages.
    assert len([call for call in side.world.calls if call.method == "page"]) == 8 + 2
    assert set(Drift.objects.values_list("kind", "status")) == {
        ("field_difference", "repaired"),
        ("tombstone_mismatch", "repaired"),
    }
    people[0].refresh_from_db()
    people[1].refresh_from_db()
    assert people[0].name == "Countess"
    assert people[1].deleted_at is not None
    assert Customer.objects.filter(name="Eve").count() == 1
    assert set(SyncState.objects.values_list("status", flat=True)) == {"in_sync", "deleted"}


def test_a_cancelled_comparison_calls_nothing_missing(side: Side) -> None:
    side.linked(name="Ada")
    operation = operation_create(
        kind="customers.reconcile", filter={"integration": "memory"}, reason="see", actor="user:ann"
    )
    operation_start(operation_id=operation.pk, actor="user:ann")
    operation_cancel(operation_id=operation.pk, actor="user:ann")

    assert operation_run(operation.pk, seconds=60).state == "cancelled"
    assert not Drift.objects.exists()


@pytest.mark.feature("G5")
def test_a_comparison_reserves_no_more_than_one_call_ahead(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """So whoever waits for an answer waits for two calls at most, however many pages there are."""
    from customers.models import SyncAccount
    from customers.sync.ratelimit import Gate

    monkeypatch.setattr(MemoryIntegration, "rate", 50)
    taken: list[tuple[int, int]] = []
    take = Gate.take

    def watched(self: Gate, priority: int, *, patience: float) -> float:
        moment = take(self, priority, patience=patience)
        starts = SyncAccount.objects.get().starts
        taken.append((priority, sum(one > time.time() for one in starts)))
        return moment

    monkeypatch.setattr(Gate, "take", watched)
    for number in range(12):
        side.world.add(name=f"Eve {number}")
    side.world.messages.clear()

    operation = carried_out()

    assert operation.state == "completed"
    assert {priority for priority, _ in taken} == {2}
    assert max(reserved for _, reserved in taken) <= 1
    assert Customer.objects.count() == 12
