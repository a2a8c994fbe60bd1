from __future__ import annotations

import threading

import pytest
from django.conf import LazySettings
from django.db import connection

from operations.models import AuditEntry
from projections.catching_up import NotCaughtUp
from projections.comparing import rebuild_compare
from projections.models import Build, Failure
from projections.projection import Batch
from projections.rebuilding import (
    NoSuchBuild,
    RebuildRunning,
    rebuild_cancel,
    rebuild_lag,
    rebuild_retire,
    rebuild_rollback,
    rebuild_start,
    rebuild_switch,
)
from projections.resolving import failure_resolve
from projections.runner import projections_run_once
from projections.troubles import ManualFailures
from projections.verifying import projection_verify
from tests.customers.races import in_threads
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

pytestmark = [pytest.mark.feature("H3")]

ANN = "user:ann"


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def tables() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^test_totals_[0-9]+$'")
        return {row[0] for row in cursor.fetchall()}


def test_it_fills_a_new_build_and_switches_readers_to_it(totals: type[Totals]) -> None:
    publish_deposits(*[f"a{n % 5}" for n in range(120)], deposit("bad", -500), "bad")
    projections_run_once()
    execute("UPDATE test_totals SET total = 7 WHERE account = 'a1'")
    old = live()

    new = rebuild_start(name="totals", actor=ANN)
    behind = rebuild_lag("totals")
    projections_run_once()
    compared = rebuild_compare(name="totals")
    seen_before = accounts()
    rebuild_switch(name="totals", actor=ANN)

    assert behind == old.cursor
    assert (compared.position, compared.is_same) == (old.cursor, False)
    (table,) = compared.tables
    assert (table.rows, table.missing, table.added, table.different) == (5, 0, 0, 1)
    assert seen_before["a1"] == (7, 24)
    assert accounts() == {f"a{n}": (24, 24) for n in range(5)}
    assert live().pk == new.pk
    assert Build.objects.get(pk=old.pk).state == "standby"
    assert Failure.objects.filter(build=new, state="retrying").count() == 1
    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True)) == [
        "projection_rebuild.started",
        "projection_rebuild.switched",
    ]


def test_it_goes_back_at_once_with_nothing_missing(totals: type[Totals]) -> None:
    publish_deposits("a")
    projections_run_once()
    old = live()
    new = rebuild_start(name="totals", actor=ANN)
    projections_run_once()
    rebuild_switch(name="totals", actor=ANN)
    publish_deposits("a", "b")
    projections_run_once()
    execute("DELETE FROM test_totals")

    rebuild_rollback(name="totals", actor=ANN)
    after = accounts()
    rebuild_rollback(name="totals", actor=ANN)

    assert after == {"a": (2, 2), "b": (1, 1)}
    assert live().pk == new.pk
    assert Build.objects.get(pk=old.pk).state == "standby"


def test_it_switches_to_another_version(totals: type[Totals], settings: LazySettings) -> None:
    publish_deposits("a")
    projections_run_once()
    path = "tests.projections.models_of_tests"
    settings.PROJECTIONS = [f"{path}.Totals", f"{path}.TotalsAgain"]

    new = rebuild_start(name="totals", actor=ANN)
    publish_deposits("a")
    projections_run_once()
    rebuild_switch(name="totals", actor=ANN)
    publish_deposits("a")
    projections_run_once()

    assert (new.version, live().version) == (2, 2)
    assert accounts() == {"a": (3, 3)}
    assert {build.events_processed for build in Build.objects.all()} == {3}


def test_it_catches_up_what_is_missing_while_it_switches(totals: type[Totals]) -> None:
    publish_deposits(*["a"] * 300)
    projections_run_once()
    rebuild_start(name="totals", actor=ANN)

    rebuild_switch(name="totals", actor=ANN)

    assert accounts() == {"a": (300, 300)}


def test_it_does_not_let_readers_see_the_past(totals: type[Totals], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.catching_up.CLOSE", 10)
    publish_deposits(*["a"] * 300)
    projections_run_once()
    rebuild_start(name="totals", actor=ANN)

    with pytest.raises(NotCaughtUp):
        rebuild_switch(name="totals", actor=ANN)
    with pytest.raises(NotCaughtUp):
        rebuild_compare(name="totals")

    assert accounts() == {"a": (300, 300)}


def test_it_keeps_one_rebuild_and_one_way_back(totals: type[Totals]) -> None:
    publish_deposits("a")
    with pytest.raises(NoSuchBuild):
        rebuild_start(name="totals", actor=ANN)
    projections_run_once()
    rebuild_start(name="totals", actor=ANN)
    with pytest.raises(RebuildRunning):
        rebuild_start(name="totals", actor=ANN)
    rebuild_cancel(name="totals", actor=ANN)
    with pytest.raises(NoSuchBuild):
        rebuild_cancel(name="totals", actor=ANN)
    with pytest.raises(NoSuchBuild):
        rebuild_rollback(name="totals", actor=ANN)
    for _ in range(3):
        rebuild_start(name="totals", actor=ANN)
        rebuild_switch(name="totals", actor=ANN)
    before = tables()

    rebuild_retire(name="totals", actor=ANN)

    assert len(before) == 2
    assert tables() == {f"test_totals_{live().pk}"}
    assert accounts() == {"a": (1, 1)}
    assert projections_run_once() == 0


def test_a_failure_of_a_build_is_its_own(totals: type[Totals]) -> None:
    publish_deposits(deposit("bad", -500), "good")
    projections_run_once()
    rebuild_start(name="totals", actor=ANN)
    projections_run_once()

    assert Failure.objects.filter(state="retrying").count() == 2
    rebuild_cancel(name="totals", actor=ANN)

    assert Failure.objects.filter(state="retrying").count() == 1


def test_readers_and_writers_notice_nothing(totals: type[Totals]) -> None:
    """Reads all the while: nobody ever sees an error, a missing row, or a row that goes backwards."""
    publish_deposits(*[f"a{n}" for n in range(40)])
    projections_run_once()
    done = threading.Event()
    reads: list[int] = []
    backwards: list[object] = []

    def read() -> None:
        last = dict.fromkeys((f"a{n}" for n in range(40)), (0, 0))
        while not done.is_set():
            seen = accounts()
            reads.append(len(seen))
            backwards.extend((name, last[name], seen.get(name)) for name in last if seen.get(name, (0, 0)) < last[name])
            last = seen

    def write() -> None:
        # Slower than the runner of two builds is on any machine, or the new one would never catch up.
        while not done.wait(0.03):
            publish_deposits(*[f"a{n}" for n in range(0, 40, 3)])

    def run() -> None:
        while not done.is_set():
            projections_run_once(seconds=0.2)

    def rebuild() -> None:
        try:
            for _ in range(4):
                rebuild_start(name="totals", actor=ANN)
                while rebuild_lag("totals") > 500:
                    done.wait(0.01)
                assert rebuild_compare(name="totals").is_same
                rebuild_switch(name="totals", actor=ANN)
            rebuild_rollback(name="totals", actor=ANN)
        finally:
            done.set()

    errors = in_threads(read, write, run, run, rebuild)

    assert errors == []
    assert backwards == []
    assert set(reads) == {40}
    assert len(reads) > 20
    Build.objects.update(lease_until="2000-01-01T00:00Z")
    projections_run_once()
    assert projection_verify(name="totals").count == 0


def test_a_comparison_takes_both_builds_from_their_runners(totals: type[Totals]) -> None:
    publish_deposits(*["a"] * 10)
    projections_run_once()
    rebuild_start(name="totals", actor=ANN)
    inside, go_on = threading.Event(), threading.Event()
    found: list[object] = []

    def hold(batch: Batch) -> None:
        if not inside.is_set():
            inside.set()
            assert go_on.wait(60)

    Totals.before = staticmethod(hold)

    def compare() -> None:
        assert inside.wait(60)
        connection.cursor().execute("SELECT 1")
        threading.Timer(0.2, go_on.set).start()
        found.append(rebuild_compare(name="totals").is_same)

    errors = in_threads(projections_run_once, compare)

    assert errors == []
    assert found == [True]


def test_a_switch_waits_for_the_batch_that_readers_are_about_to_see(totals: type[Totals]) -> None:
    publish_deposits(*["a"] * 10)
    projections_run_once()
    rebuild_start(name="totals", actor=ANN)
    projections_run_once()
    publish_deposits("a")
    inside, go_on = threading.Event(), threading.Event()
    seen: list[object] = []

    def hold(batch: Batch) -> None:
        # The older build's turn comes first: it is the one that readers see.
        if not inside.is_set():
            inside.set()
            assert go_on.wait(60)

    Totals.before = staticmethod(hold)

    def switch() -> None:
        assert inside.wait(60)
        connection.cursor().execute("SELECT 1")
        threading.Timer(0.2, go_on.set).start()
        rebuild_switch(name="totals", actor=ANN)
        seen.append(accounts()["a"])

    errors = in_threads(projections_run_once, switch)

    assert errors == []
    assert seen == [(11, 11)]


def test_what_a_person_skipped_stays_skipped_in_a_new_build(totals: type[Totals]) -> None:
    publish_deposits("a", deposit("bad", -500), "bad", deposit("worse", -500))
    projections_run_once()
    skipped = Failure.objects.get(aggregate_id="bad")
    failure_resolve(failure_id=skipped.pk, strategy="skip", actor=ANN, note="a test of the bank")
    projections_run_once()
    seen_before = accounts()

    new = rebuild_start(name="totals", actor="user:bob")
    for _ in range(3):
        projections_run_once()
    compared = rebuild_compare(name="totals")
    rebuild_switch(name="totals", actor="user:bob")

    carried = Failure.objects.get(build=new, aggregate_id="bad")
    assert seen_before["bad"] == (1, 2)
    assert accounts() == seen_before
    assert compared.is_same
    assert (carried.state, carried.strategy, carried.resolved_by) == ("resolved", "skip", ANN)
    assert carried.resolution == f"Decided for build {skipped.build_id}: a test of the bank"
    # Nobody has decided about the other one, and its build says so.
    assert Failure.objects.get(build=new, aggregate_id="worse").state == "retrying"


def test_what_is_skipped_meanwhile_is_skipped_in_all_builds(totals: type[Totals]) -> None:
    publish_deposits("a", deposit("bad", -500), "bad", deposit("fixed", -500))
    projections_run_once()
    new = rebuild_start(name="totals", actor=ANN)
    projections_run_once()
    failing = Failure.objects.filter(state="retrying").count()
    old = live()

    failure_resolve(failure_id=Failure.objects.get(build=old, aggregate_id="bad").pk, strategy="skip", actor=ANN)
    fixed = Failure.objects.get(build=old, aggregate_id="fixed")
    failure_resolve(failure_id=fixed.pk, strategy="manual_fix", actor=ANN, note="booked by hand")
    for _ in range(3):
        projections_run_once()
    compared = rebuild_compare(name="totals")

    carried = Failure.objects.get(build=new, aggregate_id="bad")
    assert failing == 4
    assert (carried.state, carried.strategy, carried.resolution) == ("resolved", "skip", f"Decided for build {old.pk}.")
    # Nobody has put right the rows of the new build.
    assert Failure.objects.get(build=new, aggregate_id="fixed").state == "retrying"
    assert (compared.failing, all(table.is_same for table in compared.tables)) == (1, True)


def test_an_event_is_one_trouble_whatever_builds_fail_at_it(totals: type[Totals]) -> None:
    publish_deposits("a", deposit("bad", -500))
    projections_run_once()
    rebuild_start(name="totals", actor=ANN)
    projections_run_once()
    Failure.objects.update(state="manual", next_retry_at=None)
    source = ManualFailures()

    (group,) = source.groups()
    (trouble,) = source.troubles()

    assert Failure.objects.count() == 2
    assert (source.counts(), group.count) == ({"manual": 1}, 1)
    assert trouble.id == group.sample_id == str(Failure.objects.get(build=live()).pk)


def test_the_comparison_tells_of_events_that_only_the_new_build_cannot_apply(totals: type[Totals]) -> None:
    publish_deposits("a", deposit("bad", -500))
    projections_run_once()
    fixed = Failure.objects.get(aggregate_id="bad")
    failure_resolve(failure_id=fixed.pk, strategy="manual_fix", actor=ANN, note="booked by hand")
    projections_run_once()

    rebuild_start(name="totals", actor=ANN)
    projections_run_once()
    compared = rebuild_compare(name="totals")

    assert (compared.failing, compared.is_same) == (1, False)
    assert all(table.is_same for table in compared.tables)
