from __future__ import annotations

import datetime as dt
import time

import pytest
from django.db import OperationalError, connection

from projections.errors import TransientError
from projections.models import Detour, Failure, FailureAttempt
from projections.projection import Batch
from projections.resolving import failure_resolve
from projections.runner import projections_run_once
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

pytestmark = [pytest.mark.feature("E1"), pytest.mark.feature("H2")]

LONG_AGO = "2000-01-01T00:00Z"


def make_due() -> None:
    Detour.objects.filter(due__isnull=False).update(due=LONG_AGO)


@pytest.mark.feature("E2")
def test_it_blames_the_event_alone_and_lets_others_go_on(totals: type[Totals]) -> None:
    ids = publish_deposits("a", deposit("bad", -5), "b", "bad", *["a"] * 30)

    projections_run_once()

    failure = Failure.objects.get()
    assert accounts() == {"a": (31, 31), "b": (1, 1)}
    assert (failure.event_id, failure.sequence, failure.event_type) == (ids[1], 1, "deposited")
    assert (failure.error_class, failure.code, failure.attempts, failure.state) == (
        "poison",
        "IntegrityError",
        1,
        "retrying",
    )
    assert "test_totals_floor" in failure.message
    assert "Traceback" in failure.traceback
    assert live().events_processed == 32
    assert live().cursor > 0


@pytest.mark.feature("E2")
def test_it_goes_back_to_the_log_in_order_when_the_event_goes_through(totals: type[Totals]) -> None:
    publish_deposits(deposit("bad", -5), "bad", "good")
    projections_run_once()
    publish_deposits("bad", "good")
    projections_run_once()
    blocked = accounts()
    seen: list[int] = []

    def mend(batch: Batch) -> None:
        seen.extend(event.sequence for event in batch)
        # What was wrong with the first event is mended: it is worth five now.
        events = [
            event._replace(payload_text='{"amount": 5}') if event.payload["amount"] < 0 else event for event in batch
        ]
        object.__setattr__(batch, "events", events)

    Totals.before = staticmethod(mend)
    make_due()
    projections_run_once()
    publish_deposits("bad")
    projections_run_once()

    assert blocked == {"good": (2, 2)}
    assert accounts() == {"bad": (8, 4), "good": (2, 2)}
    assert seen == [1, 2, 3, 4]
    assert not Detour.objects.exists()
    assert Failure.objects.get().state == "resolved"


@pytest.mark.feature("E2", "E3")
def test_it_tries_again_after_1_2_4_8_and_16_seconds_and_then_asks_a_person(totals: type[Totals]) -> None:
    publish_deposits(deposit("bad", -5), "good")
    waits = []

    projections_run_once()
    for _ in range(5):
        failure = Failure.objects.get()
        assert failure.next_retry_at is not None
        waits.append(round((failure.next_retry_at - failure.last_failed_at) / dt.timedelta(seconds=1)))
        make_due()
        projections_run_once()

    failure = Failure.objects.get()
    assert waits == [1, 2, 4, 8, 16]
    assert (failure.state, failure.attempts, failure.next_retry_at) == ("manual", 6, None)
    assert Detour.objects.get().due is None
    assert list(FailureAttempt.objects.order_by("number").values_list("number", flat=True)) == [1, 2, 3, 4, 5, 6]
    assert projections_run_once() == 0


@pytest.mark.feature("E2")
def test_it_tries_the_first_time_after_one_second_by_the_clock(totals: type[Totals]) -> None:
    failed_at: list[float] = []

    def refuse(batch: Batch) -> None:
        if len(failed_at) < 1:
            failed_at.append(time.monotonic())
            raise TransientError("not now")

    Totals.before = staticmethod(refuse)
    publish_deposits("a")
    projections_run_once()
    early = projections_run_once()
    while not accounts():
        projections_run_once()

    assert early == 0
    assert time.monotonic() - failed_at[0] > 0.9
    assert Failure.objects.get().error_class == "transient"


@pytest.mark.parametrize(
    ("event", "error_class"),
    [
        (deposit("x", type="exploded"), "unknown_type"),
        (deposit("x", schema_version=2), "schema"),
        (deposit("x", payload={"price": 1}), "schema"),
        (deposit("x", payload={"amount": "much"}), "poison"),
    ],
)
def test_it_tells_why(totals: type[Totals], event: object, error_class: str) -> None:
    publish_deposits(event, "x", "good")  # type: ignore[arg-type]

    projections_run_once()

    failure = Failure.objects.get()
    assert (failure.error_class, failure.aggregate_id, failure.sequence) == (error_class, "x", 1)
    assert accounts() == {"good": (1, 1)}


def test_it_finds_whose_fault_a_deferred_constraint_is(totals: type[Totals]) -> None:
    # The same tag twice, which PostgreSQL would complain of at COMMIT.
    publish_deposits(
        deposit("a", payload={"amount": 1, "tag": "one"}),
        deposit("b", payload={"amount": 1, "tag": "one"}),
        deposit("c", payload={"amount": 1, "tag": "two"}),
    )

    projections_run_once()

    assert set(accounts()) == {"a", "c"}
    assert Failure.objects.get().aggregate_id == "b"


@pytest.mark.parametrize("state", ["40001", "40P01", "08006", "57014", "53200", "55P03"])
def test_it_blames_no_event_when_the_database_is_in_trouble(totals: type[Totals], state: str) -> None:
    def trouble(batch: Batch) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{state}'; END $$")

    Totals.before = staticmethod(trouble)
    publish_deposits("a")
    with pytest.raises(OperationalError):
        projections_run_once()
    Totals.before = staticmethod(lambda batch: None)
    projections_run_once()

    assert not Failure.objects.exists()
    assert accounts() == {"a": (1, 1)}


def test_it_stands_many_failures_in_one_batch(totals: type[Totals]) -> None:
    publish_deposits(*[deposit(f"x{n}", -1) if n % 20 == 7 else deposit(f"a{n % 9}") for n in range(400)])

    projections_run_once()

    assert Failure.objects.count() == 20
    assert sum(total for total, _ in accounts().values()) == 380
    assert live().events_processed == 380


def test_it_serves_a_long_queue_behind_a_failure_in_pieces(totals: type[Totals]) -> None:
    publish_deposits(deposit("hot", -1000), *["hot"] * 180, "good")
    projections_run_once()
    before = accounts()
    failure = Failure.objects.get()
    failure_resolve(failure_id=failure.pk, strategy="skip", actor="user:ann")
    projections_run_once()

    assert before == {"good": (1, 1)}
    assert accounts() == {"good": (1, 1), "hot": (180, 181)}
    assert not Detour.objects.exists()


@pytest.mark.feature("E9", "H8")
def test_it_keeps_no_row_that_the_database_quotes(totals: type[Totals]) -> None:
    publish_deposits(deposit("bad@example.com", -5))

    projections_run_once()

    failure = Failure.objects.get()
    kept = failure.message + failure.traceback + FailureAttempt.objects.get().message
    assert "violates check constraint" in failure.message
    assert "bad@example.com" not in kept
    assert "DETAIL" not in kept
