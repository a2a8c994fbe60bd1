from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import IntegrityError, connection

from operations.errors import ProblemError
from operations.models import AuditEntry
from projections.models import Detour, Failure
from projections.projection import Batch
from projections.resolving import (
    AlreadyResolved,
    CompensationFailed,
    FailureNotFound,
    StrategyRefused,
    failure_resolve,
)
from projections.runner import projections_run_once
from tests.customers.races import in_threads
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Days, Totals

pytestmark = [pytest.mark.feature("E3")]


@pytest.fixture
def failed(totals: type[Totals]) -> Failure:
    """The second of four events of an account could not be applied."""
    publish_deposits(deposit("bad", 10))
    projections_run_once()
    publish_deposits(deposit("bad", -500))
    projections_run_once()
    publish_deposits(deposit("bad", 1), deposit("bad", 2), "good")
    projections_run_once()
    return Failure.objects.get()


def resolve(failure: Failure, strategy: str, **more: str) -> Failure:
    return failure_resolve(failure_id=failure.pk, strategy=strategy, actor="user:ann", **more)


def worth(amount: int) -> Callable[[Batch], None]:
    """The code is mended: what failed counts as this amount now."""

    def mend(batch: Batch) -> None:
        events = [
            event._replace(payload_text=f'{{"amount": {amount}}}') if event.payload["amount"] == -500 else event
            for event in batch
        ]
        object.__setattr__(batch, "events", events)

    return mend


def test_it_goes_on_without_the_event(failed: Failure) -> None:
    resolve(failed, "skip")
    projections_run_once()

    failed.refresh_from_db()
    assert accounts() == {"bad": (13, 4), "good": (1, 1)}
    assert (failed.state, failed.strategy, failed.resolved_by) == ("resolved", "skip", "user:ann")
    assert failed.resolved_at is not None
    assert not Detour.objects.exists()
    assert live().events_processed == 4


def test_it_tries_the_event_again(failed: Failure) -> None:
    failed.state = "manual"
    failed.save()
    Detour.objects.update(due=None)

    resolve(failed, "retry")
    projections_run_once()
    again = Failure.objects.get()
    Totals.before = staticmethod(worth(5))
    resolve(failed, "retry")
    projections_run_once()

    failed.refresh_from_db()
    assert (again.state, again.attempts) == ("retrying", 2)
    assert accounts()["bad"] == (18, 4)
    assert (failed.state, failed.strategy) == ("resolved", "retry")


def test_it_wants_a_note_of_what_was_fixed_by_hand(failed: Failure) -> None:
    with pytest.raises(StrategyRefused) as refused:
        resolve(failed, "manual_fix", note="  ")
    resolve(failed, "manual_fix", note="set the total in psql")
    projections_run_once()

    failed.refresh_from_db()
    assert refused.value.errors[0].pointer == "/note"
    assert failed.resolution == "set the total in psql"
    assert accounts()["bad"] == (13, 4)


def test_the_database_wants_that_note_too(failed: Failure) -> None:
    with pytest.raises(IntegrityError, match="projections_failure_fix_has_note"):
        Failure.objects.update(strategy="manual_fix", resolution="")


def test_it_calls_a_registered_function_in_place_of_the_event(failed: Failure) -> None:
    with pytest.raises(StrategyRefused):
        resolve(failed, "compensate", compensation="no_such")
    resolve(failed, "compensate")
    projections_run_once()

    failed.refresh_from_db()
    assert accounts()["bad"] == (14, 4)
    assert failed.resolution == "credit_one"


def test_it_changes_nothing_when_the_function_raises(failed: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_done(projection: Totals, batch: Batch) -> None:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE test_totals SET total = 99 WHERE account = 'bad'")
        raise ValueError("private@example.com")

    monkeypatch.setattr(Totals, "_credit_one", half_done)

    with pytest.raises(CompensationFailed, match="credit_one raised ValueError; nothing was changed") as refused:
        resolve(failed, "compensate")

    failed.refresh_from_db()
    assert "private" not in refused.value.detail
    assert (failed.state, failed.strategy) == ("retrying", "")
    assert accounts()["bad"] == (10, 1)
    assert not AuditEntry.objects.exists()


def test_it_blames_no_function_for_a_deadlock(failed: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    credit = Totals._credit_one

    def deadlocked_once(projection: Totals, batch: Batch) -> None:
        calls.append(1)
        if len(calls) == 1:
            with connection.cursor() as cursor:
                cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$")
        credit(projection, batch)

    monkeypatch.setattr(Totals, "_credit_one", deadlocked_once)

    resolve(failed, "compensate")

    assert len(calls) == 2
    assert accounts()["bad"] == (11, 2)


def test_it_computes_the_rows_of_the_aggregate_anew(failed: Failure) -> None:
    # The rows are damaged, and the code is mended: the second event takes all there is.
    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 77, last_sequence = 99 WHERE account = 'bad'")
    Totals.before = staticmethod(worth(-10))
    resolve(failed, "rebuild_aggregate")
    projections_run_once()

    failed.refresh_from_db()
    assert accounts() == {"bad": (3, 4), "good": (1, 1)}
    assert (failed.state, failed.strategy) == ("resolved", "rebuild_aggregate")
    assert not Detour.objects.exists()


def test_a_rebuild_that_fails_waits_at_the_event_again(failed: Failure) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE test_totals SET total = 77 WHERE account = 'bad'")

    resolve(failed, "rebuild_aggregate")
    projections_run_once()

    failed.refresh_from_db()
    assert accounts()["bad"] == (10, 1)
    assert (failed.state, failed.attempts) == ("retrying", 2)
    assert Detour.objects.get().next_sequence == 2


def test_a_rebuild_leaves_out_what_was_skipped(failed: Failure) -> None:
    resolve(failed, "skip")
    projections_run_once()
    publish_deposits(deposit("bad", -500))
    projections_run_once()

    resolve(Failure.objects.get(state="retrying"), "rebuild_aggregate")
    projections_run_once()

    assert accounts()["bad"] == (13, 4)
    assert Detour.objects.get().next_sequence == 5


def test_the_last_decision_holds(failed: Failure) -> None:
    resolve(failed, "rebuild_aggregate")
    resolve(failed, "skip")
    projections_run_once()

    assert accounts()["bad"] == (13, 4)
    assert not Detour.objects.exists()


def test_it_refuses_to_rebuild_an_aggregate_of_a_counting_projection(
    both: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Days, "types", {"renamed": 1})
    publish_deposits("a")
    projections_run_once()

    with pytest.raises(StrategyRefused):
        resolve(Failure.objects.get(projection="days"), "rebuild_aggregate")
    with pytest.raises(StrategyRefused):
        resolve(Failure.objects.get(projection="days"), "compensate")


@pytest.mark.parametrize("strategy", ["", "ignore", "SKIP"])
def test_it_refuses_unknown_strategies(failed: Failure, strategy: str) -> None:
    with pytest.raises(StrategyRefused):
        resolve(failed, strategy)

    failed.refresh_from_db()
    assert failed.state == "retrying"
    assert not AuditEntry.objects.exists()


def test_it_resolves_a_failure_once(failed: Failure) -> None:
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def work() -> None:
        barrier.wait(60)
        try:
            resolve(failed, "skip")
        except ProblemError as exc:
            outcomes.append(exc.code)
        else:
            outcomes.append("resolved")

    errors = in_threads(work, work)

    assert errors == []
    assert sorted(outcomes) == ["already_resolved", "resolved"]
    with pytest.raises(AlreadyResolved):
        resolve(failed, "retry")
    with pytest.raises(FailureNotFound):
        failure_resolve(failure_id=failed.pk + 1, strategy="skip", actor="user:ann")


@pytest.mark.feature("E9")
def test_it_says_in_the_audit_trail_who_decided_what(failed: Failure) -> None:
    resolve(failed, "skip", note="the shop cancelled it")

    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target) == (
        "user:ann",
        "projection_failure.resolved",
        f"projection_failure:{failed.pk}",
    )
    assert entry.detail["strategy"] == "skip"
    assert entry.detail["note"] == "the shop cancelled it"
