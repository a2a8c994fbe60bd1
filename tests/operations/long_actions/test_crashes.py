"""Workers that die, hang and race: nothing is done twice, nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from django.db import connection

from operations.long_actions.carrying_out import CarryingOut
from operations.long_actions.kinds import Batch, Kind, Outcome
from operations.long_actions.lease import Lease
from operations.long_actions.runner import operations_run_once
from operations.long_actions.steering import operation_cancel, operation_pause
from operations.models import ItemState, Operation, OperationItem, OperationState
from tests.children import child_run
from tests.customers.races import in_threads
from tests.operations.long_actions.acting import Acting, ActingOnce, ActingOutside, Held, acted, numbers_make
from tests.operations.long_actions.conftest import started

pytestmark = pytest.mark.feature("H4", "C11")


class Died(BaseException):
    """Stands for a worker's death."""


def killed_worker(kind: Kind, moment: str) -> None:
    """A worker of its own that kills itself when it comes to item 25: before the effect, after it, or after the commit
    of the batch that holds it."""
    carry_out, advance = kind.carry_out, CarryingOut._advance

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(batch: Batch) -> Sequence[Outcome]:
        is_mine = any(item.key == "25" for item in batch.items)
        if is_mine and moment == "before":
            die()
        outcomes = carry_out(batch)
        if is_mine and moment == "after":
            die()
        return outcomes

    def record(self: CarryingOut, operation: Operation, outcomes: Any, **more: Any) -> Any:
        if moment == "committed" and operation.begun >= 25:
            die()
        return advance(self, operation, outcomes, **more)

    def work() -> None:
        kind.carry_out = dying  # type: ignore[method-assign]
        CarryingOut._advance = record  # type: ignore[method-assign]
        operations_run_once()

    ended = child_run(work)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def lease_run_out() -> None:
    Operation.objects.update(lease_until="2020-01-01T00:00:00Z", next_step_at="2020-01-01T00:00:00Z")


def run(operation: Operation) -> Operation:
    lease_run_out()
    operations_run_once()
    operation.refresh_from_db()
    return operation


@pytest.mark.parametrize("moment", ["before", "after", "committed"])
def test_it_does_everything_exactly_once_when_its_worker_is_killed(acting: Acting, moment: str) -> None:
    numbers_make(100)
    operation = started(up_to=100)

    killed_worker(acting, moment)
    operation.refresh_from_db()
    assert operation.lease_owner
    assert 0 < operation.begun < 100
    run(operation)

    assert (operation.state, operation.succeeded, operation.strikes) == (OperationState.COMPLETED, 100, 0)
    assert acted() == list(range(1, 101))


@pytest.mark.parametrize(("moment", "twice"), [("before", False), ("after", True)])
def test_it_repeats_what_was_started_where_that_is_harmless(outside: ActingOutside, moment: str, twice: bool) -> None:
    operation = started(outside.name, up_to=100)

    killed_worker(outside, moment)
    left = set(OperationItem.objects.filter(state=ItemState.STARTED).values_list("key", flat=True))
    run(operation)

    assert "25" in left
    assert (operation.state, operation.succeeded) == (OperationState.COMPLETED, 100)
    assert set(acted()) == set(range(1, 101))
    assert len(acted()) == 100 + (len(left) if twice else 0)
    again = OperationItem.objects.filter(attempts=2).values_list("key", flat=True)
    assert set(again) == left


def test_it_leaves_to_a_person_what_may_have_been_done(once: ActingOnce) -> None:
    operation = started(once.name, up_to=100, stop_error_rate=1)

    killed_worker(once, "after")
    left = OperationItem.objects.filter(state=ItemState.STARTED).count()
    run(operation)

    assert left > 0
    assert (operation.failed, operation.succeeded) == (left, 100 - left)
    assert set(OperationItem.objects.filter(state="failed").values_list("code", flat=True)) == {"outcome_unknown"}
    assert sorted(acted()) == list(range(1, 101))


@pytest.mark.parametrize("kind", [Acting, ActingOutside])
def test_it_finds_the_item_that_kills_its_workers(
    kind: type[Acting], acting: Acting, outside: ActingOutside, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers_make(100)
    used = acting if kind is Acting else outside
    operation = started(used.name, up_to=100)
    monkeypatch.setattr(Lease, "release", lambda self, *, wait: None)

    def die(batch: Batch) -> None:
        if any(item.key == "77" for item in batch.items):
            raise Died

    used.before = die
    deaths = 0
    for _ in range(20):
        lease_run_out()
        try:
            operations_run_once()
        except Died:
            deaths += 1
    operation.refresh_from_db()

    assert deaths == 4
    item = OperationItem.objects.get(key="77")
    assert (item.state, item.code) == ("failed", "worker_died")
    assert (operation.state, operation.succeeded, operation.failed) == (OperationState.COMPLETED, 99, 1)
    assert acted() == [n for n in range(1, 101) if n != 77]


def test_it_rolls_back_a_worker_that_wakes_up_after_its_lease(acting: Acting) -> None:
    numbers_make(60)
    operation = started(up_to=60)
    held = Held()
    slow = acting.carry_out

    def first(batch: Batch) -> object:
        acting.carry_out = slow  # type: ignore[method-assign]
        held(batch)
        return slow(batch)

    acting.carry_out = first  # type: ignore[method-assign,assignment]
    suspended = threading.Thread(target=lambda: in_threads(operations_run_once))
    suspended.start()
    assert held.reached.wait(60)

    run(operation)
    assert operation.state == OperationState.COMPLETED
    held.go_on.set()
    suspended.join(60)

    assert acted() == list(range(1, 61))
    operation.refresh_from_db()
    assert operation.succeeded == 60


@pytest.mark.parametrize("steer", [operation_pause, operation_cancel])
def test_it_does_nothing_more_once_it_was_told_to_stop(acting: Acting, steer: object) -> None:
    numbers_make(1000)
    operation = started(up_to=1000)
    held = Held()
    acting.before = lambda batch: held(batch) if int(batch.items[0].key) > 100 else None
    worker = threading.Thread(target=lambda: in_threads(operations_run_once))
    worker.start()
    assert held.reached.wait(60)

    # It waits for no batch: that under way goes on only afterwards.
    steer(operation_id=operation.pk, actor="user:ann")  # type: ignore[operator]
    done = len(acted())
    held.go_on.set()
    worker.join(60)

    operation.refresh_from_db()
    assert 0 < done < 1000
    assert len(acted()) == operation.begun == done


def test_it_pauses_after_the_batch_under_way_which_is_small_under_load(acting: Acting) -> None:
    """Batches that take long become small, so that the one under way is over within half a second."""
    numbers_make(2000)
    operation = started(up_to=2000)
    acting.before = lambda batch: time.sleep(0.01 * len(batch.items))
    worker = threading.Thread(target=lambda: in_threads(operations_run_once))
    worker.start()
    while len(acted()) < 100:
        time.sleep(0.01)

    operation_pause(operation_id=operation.pk, actor="user:ann")
    done = len(acted())
    worker.join(60)

    assert not worker.is_alive()
    assert max(acting.sizes) <= 50
    assert len(acted()) <= done + max(acting.sizes)


@pytest.mark.feature("H1")
def test_it_shares_operations_among_workers_and_items_among_none(acting: Acting) -> None:
    numbers_make(300)
    operations = [started(up_to=300) for _ in range(4)]

    errors = in_threads(*[operations_run_once] * 5)

    assert errors == []
    assert sorted(acted()) == sorted(list(range(1, 301)) * 4)
    for operation in operations:
        operation.refresh_from_db()
        assert (operation.state, operation.succeeded) == (OperationState.COMPLETED, 300)


def test_it_asks_the_index_for_what_is_due(acting: Acting) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO operations_operation (kind, filter, reason, actor, correlation_id, state, note, eligible,"
            " ineligible, canary, canary_passed, ramp_seconds, stop_error_rate, tokens, collected, collected_through,"
            " items, begun_through, begun, succeeded, failed, skipped, recent_ended, recent_failed, lease_owner,"
            " lease_token, batch, strikes, careful_through, finished_at)"
            " SELECT 'tests.act', '{}', 'r', 'a', '', 'completed', '', 0, '{}', 0, false, 0, 0.5, 0, true, '',"
            " 5, 5, 5, 5, 0, 0, 0, 0, '', 0, 10, 0, 0, now() FROM generate_series(1, 20000)"
        )
        cursor.execute("ANALYZE operations_operation")
        from operations.long_actions.lease import CLAIM_SQL

        cursor.execute("EXPLAIN " + CLAIM_SQL, {"kinds": ["tests.act"], "owner": "o", "seconds": 1, "only": None})
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "operations_operation_due" in plan, plan
