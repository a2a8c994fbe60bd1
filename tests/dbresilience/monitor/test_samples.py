from __future__ import annotations

import datetime as dt

import pytest
from django.utils import timezone

from dbresilience.models import Deadlock, Sample, Tally
from dbresilience.monitor.samples import sample_once, samples
from dbresilience.tasks import sample
from zenskar.beat import BEAT_SCHEDULE

pytestmark = [pytest.mark.feature("B8")]


def at(**ago: float) -> dt.datetime:
    return timezone.now().replace(second=0, microsecond=0) - dt.timedelta(**ago)


def test_it_keeps_one_sample_a_minute_however_many_samplers_run() -> None:
    kept = [sample_once() for _ in range(3)]

    assert 1 <= sum(kept) <= 2
    assert Sample.objects.count() == sum(kept)
    assert Sample.objects.first().figures["server"]["client_connections"] >= 1


def test_it_deletes_what_is_older_than_a_week() -> None:
    for days in (6, 8):
        Sample.objects.create(minute=at(days=days), figures={})
        Tally.objects.create(span=at(days=days), name="error", key="x", count=1)
        Deadlock.objects.create(at=at(days=days), fingerprint="x", processes=2)

    sample()

    assert Sample.objects.count() == 2
    assert [Tally.objects.count(), Deadlock.objects.count()] == [1, 1]


def test_it_thins_out_a_long_window() -> None:
    Sample.objects.bulk_create(Sample(minute=at(minutes=n), figures={"response_ms": n}) for n in range(1, 601))

    hour, day = samples(hours=1), samples(hours=24, points=24)

    assert 58 <= len(hour) <= 60
    assert 22 <= len(day) <= 26
    assert [row["minute"] for row in day] == sorted(row["minute"] for row in day)


def test_it_thins_out_no_more_than_it_must() -> None:
    Sample.objects.bulk_create(Sample(minute=at(minutes=n), figures={}) for n in range(1, 121))

    assert len(samples(hours=168)) == 120


def test_it_is_sampled_each_minute_by_beat() -> None:
    entry = next(entry for entry in BEAT_SCHEDULE.values() if entry["task"] == "dbresilience.tasks.sample")

    assert entry["schedule"] == 60


def test_it_counts_the_servers_deadlocks_from_the_oldest_sample() -> None:
    sample_once()
    row = Sample.objects.get()
    row.minute, row.figures["database"]["deadlocks"] = at(hours=23), row.figures["database"]["deadlocks"] - 4
    row.save()

    sample_once()

    newest = Sample.objects.latest("minute")
    assert newest.figures["server_deadlocks"]["last_24h"] == 4
