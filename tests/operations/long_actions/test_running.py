from __future__ import annotations

import pytest

from operations.long_actions.kinds import Batch, ItemsQuery, Outcome, failed, succeeded
from operations.long_actions.runner import operations_run_once
from operations.long_actions.steering import operation_cancel, operation_pause, operation_resume
from operations.models import AuditEntry, ItemState, Operation, OperationItem, OperationState
from tests.operations.long_actions.acting import (
    Acting,
    ActingOutside,
    HandingOver,
    acted,
    numbers_make,
    refusing,
    skipping,
)
from tests.operations.long_actions.conftest import planned, started

pytestmark = pytest.mark.feature("H4", "F5")


def run(operation: Operation, *, times: int = 1) -> Operation:
    for _ in range(times):
        operations_run_once()
    operation.refresh_from_db()
    return operation


def again(operation: Operation) -> Operation:
    """Make it due at once, whatever rest its holder thought of."""
    Operation.objects.filter(pk=operation.pk).update(next_step_at="2020-01-01T00:00:00Z")
    return run(operation)


def states(operation: Operation) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in OperationItem.objects.filter(operation=operation).order_by("pk"):
        found.setdefault(item.state, []).append(item.key)
    return found


def counts(operation: Operation) -> tuple[int, int, int, int, int]:
    return operation.items, operation.begun, operation.succeeded, operation.failed, operation.skipped


def test_it_counts_and_does_nothing_before_it_is_started(acting: Acting) -> None:
    numbers_make(10, odd=[4])

    operation = run(planned())

    assert (operation.state, operation.eligible, operation.ineligible) == ("planned", 9, {"odd one out": 1})
    assert operation.items == 0
    assert acted() == []


def test_it_carries_out_every_item_once(acting: Acting) -> None:
    numbers_make(120, odd=[4])
    acting.refuse = skipping(7)

    operation = run(started(up_to=110))

    assert operation.state == OperationState.COMPLETED
    assert counts(operation) == (109, 109, 108, 0, 1)
    assert acted() == [n for n in range(1, 111) if n not in (4, 7)]
    assert states(operation)["skipped"] == ["7"]
    assert operation.finished_at is not None
    assert operation.lease_owner == ""


def test_it_takes_items_from_code_outside_of_transactions(outside: ActingOutside) -> None:
    outside.refuse = refusing(3)

    operation = run(started(outside.name, up_to=70))

    assert counts(operation) == (70, 70, 69, 1, 0)
    item = OperationItem.objects.get(operation=operation, state=ItemState.FAILED)
    assert (item.key, item.code, item.message, item.attempts) == ("3", "refused", "no 3 today", 1)


def test_it_collects_in_pages(acting: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.long_actions.items.PAGE", 7)
    numbers_make(30, odd=[30])

    operation = run(started(up_to=40))

    assert counts(operation) == (29, 29, 29, 0, 0)
    assert acted() == list(range(1, 30))


def test_it_completes_with_nothing_to_do(acting: Acting) -> None:
    assert run(started()).state == OperationState.COMPLETED


def test_it_writes_everything_down_in_the_audit_trail(acting: Acting) -> None:
    numbers_make(3)

    operation = run(started())

    entries = AuditEntry.objects.filter(target=f"operation:{operation.pk}").order_by("pk")
    assert [(entry.actor, entry.action) for entry in entries] == [
        ("user:ann", "operation.planned"),
        ("user:ann", "operation.started"),
        ("system", "operation.completed"),
    ]
    assert entries[2].detail["succeeded"] == 3


def test_it_stops_by_itself_when_too_much_fails(acting: Acting) -> None:
    numbers_make(500)
    acting.refuse = lambda item: failed(item, "refused") if int(item.key) > 100 else None

    operation = run(started(up_to=500, stop_error_rate=0.3))

    assert operation.state == OperationState.PAUSED
    assert "stops above 30%" in operation.note
    assert operation.begun < 400
    assert AuditEntry.objects.filter(action="operation.stopped", actor="system").count() == 1


def test_it_goes_on_after_the_cause_was_put_right(acting: Acting) -> None:
    numbers_make(100)
    acting.refuse = lambda item: failed(item, "refused")
    operation = run(started(up_to=100, stop_error_rate=0.3))
    stopped_at = operation.begun

    acting.refuse = lambda item: None
    operation_resume(operation_id=operation.pk, actor="user:ann")
    run(operation)

    assert operation.state == OperationState.COMPLETED
    assert (operation.failed, operation.succeeded) == (stopped_at, 100 - stopped_at)


def test_it_tries_a_canary_first_and_stops_there_when_it_dies(acting: Acting) -> None:
    numbers_make(100)
    acting.refuse = refusing(1, 2)

    operation = run(started(up_to=100, canary=3))

    assert (operation.state, operation.begun, operation.canary_passed) == (OperationState.PAUSED, 3, False)
    assert "of the canary failed" in operation.note


@pytest.mark.parametrize("there", [2, 100])
def test_it_goes_on_after_a_canary_that_died_when_resumed(acting: Acting, there: int) -> None:
    numbers_make(there)
    acting.refuse = refusing(1, 2)
    operation = run(started(up_to=100, canary=3))
    stopped = (operation.state, operation.failed)

    operation_resume(operation_id=operation.pk, actor="user:ann")
    run(operation)

    assert stopped == (OperationState.PAUSED, 2)
    assert (operation.state, operation.failed, operation.succeeded) == (OperationState.COMPLETED, 2, there - 2)


def test_a_canary_that_was_paused_is_judged_when_it_has_ended(acting: Acting) -> None:
    numbers_make(100)
    operation = started(up_to=100, canary=3)
    operation_pause(operation_id=operation.pk, actor="user:ann")
    operation_resume(operation_id=operation.pk, actor="user:ann")
    acting.refuse = refusing(1, 2)

    run(operation)

    assert (operation.state, operation.begun, operation.canary_passed) == (OperationState.PAUSED, 3, False)


def test_it_goes_on_after_a_canary_that_lived(acting: Acting) -> None:
    numbers_make(100)
    acting.refuse = refusing(2)

    operation = run(started(up_to=100, canary=3))

    assert (operation.state, operation.succeeded) == (OperationState.COMPLETED, 99)
    assert acting.sizes[0] == 3


def test_it_waits_for_the_canarys_end_elsewhere(handing: HandingOver) -> None:
    numbers_make(100)
    operation = run(started(handing.name, up_to=100, canary=5))
    assert (operation.begun, operation.in_flight) == (5, 5)

    handing.ends = succeeded
    again(operation)
    again(operation)

    assert operation.canary_passed
    assert operation.state == OperationState.COMPLETED
    assert operation.succeeded == 100


def test_it_hands_over_no_more_than_is_taken_elsewhere(handing: HandingOver) -> None:
    numbers_make(100)

    operation = run(started(handing.name, up_to=100))

    assert 30 <= operation.in_flight < 30 + handing.batch_size
    assert operation.state == OperationState.RUNNING


def test_it_learns_what_became_of_items_even_after_it_was_cancelled(handing: HandingOver) -> None:
    numbers_make(100)
    operation = run(started(handing.name, up_to=100))
    operation_cancel(operation_id=operation.pk, actor="user:ann")
    begun = operation.begun

    handing.ends = lambda item: failed(item, "refused")
    again(operation)

    assert (operation.state, operation.begun, operation.failed) == (OperationState.CANCELLED, begun, begun)


def test_it_blames_the_item_that_raises_and_no_other(acting: Acting) -> None:
    numbers_make(100)

    def explode(batch: Batch) -> None:
        if any(item.key == "60" for item in batch.items):
            raise ValueError("sixty")

    acting.before = explode

    operation = run(started(up_to=100))

    assert counts(operation) == (100, 100, 99, 1, 0)
    item = OperationItem.objects.get(operation=operation, key="60")
    assert (item.state, item.code, item.message) == ("failed", "ValueError", "sixty")
    assert acted() == [n for n in range(1, 101) if n != 60]


def test_it_blames_the_item_that_raises_outside_of_transactions_too(outside: ActingOutside) -> None:
    def explode(batch: Batch) -> None:
        if any(item.key == "60" for item in batch.items):
            raise ValueError("sixty")

    outside.before = explode

    operation = run(started(outside.name, up_to=100))

    assert counts(operation) == (100, 100, 99, 1, 0)
    assert states(operation)["failed"] == ["60"]
    assert acted() == [n for n in range(1, 101) if n != 60]


def test_it_fails_an_item_that_got_no_outcome(acting: Acting) -> None:
    numbers_make(3)
    carry_out = acting.carry_out
    acting.carry_out = lambda batch: carry_out(batch)[1:]  # type: ignore[method-assign]

    operation = run(started())

    item = OperationItem.objects.get(operation=operation, state="failed")
    assert (item.key, item.code) == ("1", "no_outcome")


def test_it_keeps_any_text_that_a_kind_says(acting: Acting) -> None:
    numbers_make(1)
    acting.refuse = lambda item: Outcome(item.id, ItemState.FAILED, "\0" * 200, "\ud800\0" + "x" * 5000)

    operation = run(started())

    item = OperationItem.objects.get(operation=operation)
    assert (item.code, item.message) == ("", "?" + "x" * 999)


def test_it_fails_when_its_items_cannot_be_said(acting: Acting) -> None:
    acting.items_query = lambda frozen: ItemsQuery("SELECT nonsense")  # type: ignore[method-assign]

    operation = run(started())

    assert operation.state == OperationState.FAILED
    assert "ProgrammingError" in operation.note


def test_it_leaves_kinds_of_others_alone(acting: Acting) -> None:
    numbers_make(3)
    operation = started()
    Operation.objects.update(kind="of.another.release")

    run(operation)

    assert (operation.state, operation.lease_token) == (OperationState.RUNNING, 0)


def test_it_keeps_to_its_rate(acting: Acting) -> None:
    numbers_make(100)

    operation = started(up_to=100, rate=20)
    operations_run_once(budget=1.0)
    operation.refresh_from_db()

    assert 15 <= operation.begun <= 21


def test_it_ramps_up(acting: Acting) -> None:
    numbers_make(200)

    operation = started(up_to=200, rate=100, ramp_seconds=60)
    operations_run_once(budget=1.0)
    operation.refresh_from_db()

    assert 5 <= operation.begun <= 12


def test_it_gives_each_operation_its_turn(acting: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.long_actions.runner.SLICE_SECONDS", 0.05)
    numbers_make(200)
    slow = started(up_to=200, rate=1)
    quick = started(up_to=200)

    run(quick)

    slow.refresh_from_db()
    assert quick.state == OperationState.COMPLETED
    assert slow.state == OperationState.RUNNING
    assert slow.begun >= 0


def test_it_pauses_and_resumes_without_repeating(acting: Acting) -> None:
    numbers_make(100)
    operation = started(up_to=100, rate=10)
    operations_run_once(budget=0.5)
    operation_pause(operation_id=operation.pk, actor="user:ann")
    run(operation)
    begun = operation.begun
    assert 0 < begun < 100

    Operation.objects.update(rate=None)
    operation_resume(operation_id=operation.pk, actor="user:ann")
    run(operation)

    assert operation.state == OperationState.COMPLETED
    assert acted() == list(range(1, 101))
