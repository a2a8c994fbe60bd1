from __future__ import annotations

import threading

import pytest
from django.db import OperationalError, connection

from outbox.lanes import LANES, lane_of
from outbox.ordered import ordered_read
from outbox.sequencing import Sequencer
from projections.builds import builds_ensure
from projections.errors import LeaseLost
from projections.models import Build, Minute
from projections.projection import Batch
from projections.runner import BuildRunner, projections_run_once
from tests.customers.races import in_threads
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

pytestmark = [pytest.mark.feature("H3")]


@pytest.mark.feature("E4")
def test_it_applies_each_event_once_and_keeps_the_checkpoint(totals: type[Totals]) -> None:
    ids = publish_deposits(*[f"a{n % 7}" for n in range(140)])

    done = projections_run_once()
    again = projections_run_once()

    assert (done, again) == (140, 0)
    assert accounts() == {f"a{n}": (20, 20) for n in range(7)}
    build = live()
    assert (build.events_processed, build.last_event_id, build.last_event_type) == (140, ids[-1], "deposited")
    assert (build.owner, build.strikes) == ("", 0)
    assert sum(Minute.objects.values_list("events", flat=True)) == 140


def test_it_reads_all_lanes_as_one_sequence(totals: type[Totals]) -> None:
    names = [f"n{n}" for n in range(400)]
    assert len({lane_of("account", name) for name in names}) == LANES
    publish_deposits(*names)
    publish_deposits(*["hot"] * 300)
    publish_deposits(*names)
    projections_run_once()

    found, after = [], 0
    while read := ordered_read(after=after, limit=37, topics=None):
        if not read.places:
            break
        assert read.reached > after
        found += read.events
        after = read.reached

    assert [event.position for event in found] == sorted(event.position for event in found)
    assert len(found) == 1100
    assert after == live().cursor


def test_it_passes_what_it_does_not_want(totals: type[Totals]) -> None:
    publish_deposits(deposit("x", topic="elsewhere"), deposit("a"), deposit("x", topic="elsewhere"))

    projections_run_once()

    build = live()
    assert accounts() == {"a": (1, 1)}
    assert build.events_processed == 1
    assert projections_run_once() == 0


@pytest.mark.feature("E4")
def test_it_keeps_nothing_of_a_batch_that_the_database_lost(totals: type[Totals]) -> None:
    publish_deposits("a", "b")
    projections_run_once()
    publish_deposits("a", "c")

    def break_off(batch: Batch) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'gone' USING ERRCODE = '57P01'; END $$")

    Totals.before = staticmethod(break_off)
    with pytest.raises(OperationalError):
        projections_run_once()
    held = live()
    Totals.before = staticmethod(lambda batch: None)
    projections_run_once()

    assert held.events_processed == 2
    assert accounts() == {"a": (2, 2), "b": (1, 1), "c": (1, 1)}
    assert not live().failure_set.exists()


def test_it_changes_nothing_after_another_runner_took_over(totals: type[Totals]) -> None:
    publish_deposits("a")
    (build,) = builds_ensure()
    first, second = BuildRunner(Totals(), build.pk, owner="first"), BuildRunner(Totals(), build.pk, owner="second")
    projections_run_once()
    publish_deposits("a")
    Sequencer().sequence_once()
    assert first.claim()
    assert not second.claim()
    Build.objects.update(lease_until="2000-01-01T00:00Z")

    assert second.claim()
    with pytest.raises(LeaseLost):
        first.step()
    second.step()
    second.release()

    assert accounts() == {"a": (2, 2)}
    assert live().events_processed == 2


def test_it_does_not_take_a_build_that_is_being_worked_on(totals: type[Totals]) -> None:
    publish_deposits("a")
    builds_ensure()
    inside, go_on = threading.Event(), threading.Event()
    refused: list[bool] = []

    def hold(batch: Batch) -> None:
        # The lease ends while the batch is under way.
        inside.set()
        assert go_on.wait(60)

    Totals.before = staticmethod(hold)

    def other() -> None:
        assert inside.wait(60)
        runner = BuildRunner(Totals(), live().pk, owner="other")
        connection.cursor().execute("SELECT 1")
        refused.append(runner.claim())
        go_on.set()

    errors = in_threads(projections_run_once, other)

    assert errors == []
    assert refused == [False]
    assert accounts() == {"a": (1, 1)}


def test_two_runners_share_the_work_without_doing_it_twice(both: None) -> None:
    publish_deposits(*[f"a{n % 11}" for n in range(1000)])

    errors = in_threads(projections_run_once, projections_run_once)
    projections_run_once()

    assert errors == []
    assert sum(total for total, _ in accounts().values()) == 1000
    assert live("totals").events_processed == live("days").events_processed == 1000


def test_it_stays_careful_where_a_hot_aggregate_cut_its_reading_short(totals: type[Totals]) -> None:
    publish_deposits(*["hot"] * 200)
    build = builds_ensure()[0]
    Sequencer().sequence_once()
    Build.objects.update(strikes=1)
    runner = BuildRunner(Totals(), build.pk)
    assert runner.claim()

    done = runner.step()

    assert 0 < done < 200
    assert live().strikes == 1


def test_it_finds_the_event_that_kills_workers(totals: type[Totals]) -> None:
    publish_deposits(*["good"] * 20, "killer", *["good"] * 20)

    class Killed(BaseException):
        pass

    def kill(batch: Batch) -> None:
        if any(event.aggregate_id == "killer" for event in batch):
            raise Killed

    Totals.before = staticmethod(kill)
    builds_ensure()
    Sequencer().sequence_once()
    deaths = 0
    for _ in range(20):
        Build.objects.update(lease_until="2000-01-01T00:00Z")
        runner = BuildRunner(Totals(), live().pk, owner=f"runner {deaths}")
        assert runner.claim()
        try:
            while runner.step():
                pass
        except Killed:
            deaths += 1
            continue
        break

    failure = live().failure_set.get()
    assert (failure.aggregate_id, failure.code) == ("killer", "worker_died")
    assert accounts() == {"good": (40, 40)}
    assert deaths <= 8
