from __future__ import annotations

import datetime as dt

import pytest
from django.db import connection
from django.utils import timezone

from projections.health import Status, band, projection_health
from projections.models import Build, Minute
from projections.runner import projections_run_once
from projections.sampling import health_sample_once
from tests.projections.conftest import deposit, live, publish_deposits
from tests.projections.models_of_tests import Totals

pytestmark = [pytest.mark.feature("E5")]


@pytest.mark.parametrize(
    ("failures", "status"),
    [
        (0, "healthy"),
        (1, "degraded"),
        (9, "degraded"),
        (10, "critical"),
        (49, "critical"),
        (50, "offline"),
        (9999, "offline"),
    ],
)
def test_it_has_bands(failures: int, status: str) -> None:
    assert band(failures) == status


@pytest.mark.feature("E8")
def test_it_counts_failing_events_and_shows_what_waits_behind_them(totals: type[Totals]) -> None:
    publish_deposits(*[deposit(f"bad{n}", -500) for n in range(11)], *["bad3"] * 4, "good")
    projections_run_once()

    found = projection_health("totals")

    assert found is not None
    assert (found.status, found.active_failures, found.waiting_behind_failures) == (Status.CRITICAL, 11, 4)
    assert (found.lag_events, found.lag_seconds, found.stalled) == (0, 0.0, False)
    assert [alert.code for alert in found.alerts] == ["critical", "many_failures"]
    assert found.failure_rate == pytest.approx(11 / 12, abs=0.001)
    assert found.average_apply_ms is not None
    assert found.p95_apply_ms is not None


@pytest.mark.feature("E8")
def test_it_is_not_healthy_when_something_waits_and_nothing_moves(totals: type[Totals]) -> None:
    publish_deposits("a")
    projections_run_once()
    publish_deposits("a", "b")
    at_first = projection_health("totals")
    old = timezone.now() - dt.timedelta(minutes=10)
    Build.objects.update(checkpoint_at=old, created_at=old)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_event SET created_at = %s", [old])

    later = projection_health("totals")
    projections_run_once()
    moved = projection_health("totals")

    assert at_first is not None and later is not None and moved is not None
    assert (at_first.status, at_first.lag_events, at_first.stalled) == (Status.HEALTHY, 2, False)
    assert (later.status, later.lag_events, later.stalled) == (Status.CRITICAL, 2, True)
    assert 599 < later.lag_seconds < 660
    assert later.unsequenced_seconds == later.lag_seconds
    assert [alert.code for alert in later.alerts] == ["stalled", "critical", "lag"]
    assert (moved.status, moved.lag_events, moved.lag_seconds) == (Status.HEALTHY, 0, 0.0)


def test_it_counts_a_long_queue_without_reading_it(totals: type[Totals]) -> None:
    publish_deposits("a")
    projections_run_once()
    publish_deposits(*["a"] * 500, *[f"n{n}" for n in range(200)])
    from outbox.sequencing import Sequencer

    Sequencer().sequence_once()

    found = projection_health("totals")

    assert found is not None
    assert found.lag_events == 700


def test_it_knows_nothing_of_what_was_never_built(totals: type[Totals]) -> None:
    assert projection_health("totals") is None


def test_it_keeps_a_sample_of_each_minute(totals: type[Totals]) -> None:
    publish_deposits(deposit("bad", -500), "good")
    projections_run_once()
    Minute.objects.create(build=live(), minute=timezone.now() - dt.timedelta(days=8), status="healthy")

    written = health_sample_once()
    again = health_sample_once()

    row = Minute.objects.get(status="degraded")
    assert (written, again) == (1, 1)
    assert (row.active_failures, row.lag_events, row.events, row.failures, row.batches) == (1, 0, 1, 1, 1)
    assert not Minute.objects.filter(status="healthy").exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT health_status, active_failures FROM projection_health_metrics")
        assert cursor.fetchall() == [("degraded", 1)]
        cursor.execute("SELECT projection_name, last_event_sequence, events_processed FROM projection_checkpoints")
        assert cursor.fetchall() == [("totals", live().cursor, 1)]
        cursor.execute("SELECT error_type, retry_count, max_retries FROM projection_failures")
        assert cursor.fetchall() == [("IntegrityError", 0, 5)]


@pytest.mark.parametrize("sampled", [None, [], [1]])
def test_it_measures_batches_in_a_minute_that_began_with_a_sample(
    totals: type[Totals], sampled: list[int] | None
) -> None:
    publish_deposits("a")
    projections_run_once()
    Minute.objects.all().delete()
    health_sample_once()
    if sampled is not None:
        # As a version wrote it that knew other buckets.
        Minute.objects.update(buckets=sampled)
    before = projection_health("totals")

    publish_deposits("a", "b")
    projections_run_once()
    publish_deposits("a")
    projections_run_once()
    found = projection_health("totals")

    assert before is not None and before.p95_apply_ms is None
    assert found is not None and found.p95_apply_ms is not None
    assert sum(sum(row.buckets) for row in Minute.objects.all() if len(row.buckets) > 1) == 2
