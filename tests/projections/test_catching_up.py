"""Builds that are far behind: read once for all, ahead of what is applied, in larger batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import OperationalError, connection, transaction

from outbox.ordered import DETAILS, WIDE, OrderedRead, ordered_read
from outbox.sequencing import Sequencer
from projections import log_reader
from projections.batches import batch_apply
from projections.builds import builds_ensure
from projections.checks import check_projections
from projections.log_reader import LogReader, Stretch
from projections.models import Build
from projections.runner import BuildRunner, projections_run_once
from projections.verifying import projection_verify
from tests.projections.conftest import accounts, deposit, live, publish_deposits
from tests.projections.models_of_tests import Days, Totals

pytestmark = [pytest.mark.feature("H3")]

Reads = list[tuple[bool, int, int]]
"""Whether it was read ahead, after which position, and how many were there."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    found: Reads = []

    def looked(**asked: Any) -> OrderedRead:
        read = ordered_read(**asked)
        ahead = threading.current_thread() is not threading.main_thread()
        found.append((ahead, asked["after"], read.places))
        return read

    monkeypatch.setattr(log_reader, "ordered_read", looked)
    yield found


def test_it_reads_once_for_all_builds_and_ahead_of_them(
    both: None, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Days, "batch_size", 50)
    publish_deposits(*[f"a{n}" for n in range(400)])

    done = projections_run_once()

    full = [after for _, after, places in reads if places == 50]
    assert done == 800
    assert len(full) == len(set(full)) == 8
    assert [ahead for ahead, _, places in reads if places == 50] == [False, *[True] * 7]
    assert [projection_verify(name=name).count for name in ("totals", "days")] == [0, 0]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("projections-log")]


def test_a_build_that_is_up_to_date_reads_nothing_ahead(totals: type[Totals], reads: Reads) -> None:
    publish_deposits(*[f"a{n}" for n in range(39)])

    projections_run_once()

    assert [ahead for ahead, _, _ in reads] == [False, False]


def test_what_was_short_when_it_was_read_ahead_is_read_again(totals: type[Totals]) -> None:
    publish_deposits("a", "b")
    Sequencer().sequence_once()
    reader, stretch = LogReader([Totals()]), Stretch(Totals.topics, 0, 50, 50, 2**63 - 1)
    reader.begin(stretch)
    reader.turn()
    reader._ahead[stretch].result(60)
    publish_deposits("c")
    Sequencer().sequence_once()

    read = reader.read(stretch)
    reader.close()

    assert [event.aggregate_id for event in read.events] == ["a", "b", "c"]


def test_what_an_open_transaction_wrote_is_not_read_ahead(totals: type[Totals], reads: Reads) -> None:
    with transaction.atomic():
        publish_deposits(*[f"a{n}" for n in range(120)])
        projections_run_once()
        seen = accounts()

    assert len(seen) == 120
    assert not any(ahead for ahead, _, _ in reads)


def test_trouble_while_reading_ahead_loses_nothing(totals: type[Totals], monkeypatch: pytest.MonkeyPatch) -> None:
    publish_deposits(*[f"a{n % 9}" for n in range(180)])
    monkeypatch.setattr(log_reader, "ordered_read", _failing_ahead)

    with pytest.raises(OperationalError):
        projections_run_once()
    before = live().events_processed
    monkeypatch.undo()
    projections_run_once()

    assert before == 50
    assert accounts() == {f"a{n}": (20, 20) for n in range(9)}
    assert live().events_processed == 180


def _failing_ahead(**asked: Any) -> OrderedRead:
    if threading.current_thread() is not threading.main_thread():
        raise OperationalError("The server is gone.")
    return ordered_read(**asked)


def test_what_was_read_ahead_is_dropped_when_another_runner_takes_over(
    totals: type[Totals], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_deposits(*[f"a{n}" for n in range(150)])

    monkeypatch.setattr("projections.runner.batch_apply", _apply_too_late)

    projections_run_once()
    lost = live().events_processed
    monkeypatch.undo()
    Build.objects.update(owner="")
    projections_run_once()

    assert lost == 50
    assert accounts() == {f"a{n}": (1, 1) for n in range(150)}


def _apply_too_late(held: Any, read: OrderedRead, **options: Any) -> None:
    """Somebody else claims the build while its second batch, which was read ahead, is about to be applied."""
    if held.cursor:
        Build.objects.update(epoch=1000)
    batch_apply(held, read, **options)


def test_batches_grow_while_a_build_is_far_behind(
    totals: type[Totals], settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROJECTIONS_BATCH_SIZE = 10
    # However slow this machine is, no batch takes a twentieth of that.
    settings.PROJECTIONS_LEASE_SECONDS = 3600
    monkeypatch.setattr(Totals, "batch_size", None)
    publish_deposits(*[f"a{n}" for n in range(155)])
    sizes: list[int] = []
    Totals.before = staticmethod(lambda batch: sizes.append(len(batch)))

    projections_run_once()
    publish_deposits(*[f"b{n}" for n in range(12)])
    projections_run_once()

    assert sizes == [10, 20, 40, 40, 40, 5, 10, 2]


def test_batches_stay_small_where_they_take_long(
    totals: type[Totals], settings: LazySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROJECTIONS_BATCH_SIZE = 10
    monkeypatch.setattr("projections.runner.SWIFT", 0.0)
    monkeypatch.setattr(Totals, "batch_size", None)
    publish_deposits(*[f"a{n}" for n in range(45)])
    sizes: list[int] = []
    Totals.before = staticmethod(lambda batch: sizes.append(len(batch)))

    projections_run_once()

    assert sizes == [10, 20, 10, 5]


def test_a_hot_aggregate_is_read_through_its_lane(totals: type[Totals], settings: LazySettings) -> None:
    publish_deposits(*["hot"] * 100)
    Sequencer().sequence_once()
    (build,) = builds_ensure()
    runner = BuildRunner(Totals(), build.pk)
    assert runner.claim()

    steps = [runner.step() for _ in range(6)]
    runner.release()

    # A lane's share of 50, then twice as many each time.
    assert steps == [8, 16, 32, 44, 0, 0]
    assert accounts() == {"hot": (100, 100)}


def test_events_are_read_without_what_nobody_looks_at(totals: type[Totals]) -> None:
    publish_deposits(deposit("a", 7, origin="api", correlation_id="c"))
    Sequencer().sequence_once()

    (bare,) = ordered_read(after=0, limit=9, topics=None, details=()).events
    (some,) = ordered_read(after=0, limit=9, topics=None, details={"origin"}).events
    (whole,) = ordered_read(after=0, limit=9, topics=None).events

    assert [getattr(bare, name) for name in DETAILS] == [None] * len(DETAILS)
    assert bare.payload == {"amount": 7} and bare.aggregate == ("account", "a")
    assert (some.origin, some.created_text) == ("api", None)
    assert bare._replace(**{name: getattr(whole, name) for name in DETAILS}) == whole
    assert None not in whole


@pytest.mark.parametrize("apart", [False, True], ids=["neighbours", "far apart"])
def test_many_events_are_read_as_few_are(totals: type[Totals], apart: bool) -> None:
    publish_deposits(*[f"a{n}" for n in range(30)])
    if apart:
        with connection.cursor() as cursor:
            cursor.execute("SELECT nextval('outbox_event_id_seq') FROM generate_series(1, 500)")
    publish_deposits(*[f"a{n}" for n in range(30)], deposit("x", topic="elsewhere"))
    Sequencer().sequence_once()

    wide = ordered_read(after=0, limit=WIDE, topics=Totals.topics)
    narrow = ordered_read(after=0, limit=WIDE - 1, topics=Totals.topics)

    assert list(wide.events) == list(narrow.events)
    assert (len(wide.events), wide.places, wide.reached) == (60, 61, narrow.reached)


def test_an_unknown_detail_is_refused_at_start(totals: type[Totals], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Totals, "reads", frozenset({"created"}))

    found = check_projections()

    assert [one.id for one in found] == ["projections.E007"]
