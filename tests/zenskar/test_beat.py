from __future__ import annotations

import pytest
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from zenskar.beat import BEAT_SCHEDULE
from zenskar.celery import app


@pytest.fixture
def registered() -> set[str]:
    app.loader.import_default_modules()
    return set(app.tasks)


@pytest.mark.feature("F4", "A10")
def test_it_names_only_tasks_that_exist(registered: set[str]) -> None:
    named = {entry["task"] for entry in BEAT_SCHEDULE.values()}

    assert named <= registered


@pytest.mark.feature("F4")
def test_it_gives_every_task_its_own_entry(registered: set[str]) -> None:
    own = {name for name in registered if not name.startswith(("celery.", "tests."))}

    assert own == {entry["task"] for entry in BEAT_SCHEDULE.values()}


@pytest.mark.feature("A10", "F4")
@pytest.mark.django_db(transaction=True)
def test_it_drains_every_second_and_lets_stale_tasks_go() -> None:
    DatabaseScheduler(app=app, lazy=False)

    drain = PeriodicTask.objects.get(name="outbox")
    assert (drain.interval.every, drain.interval.period) == (1, "seconds")
    assert drain.expire_seconds == 1
    assert set(PeriodicTask.objects.values_list("name", flat=True)) == set(BEAT_SCHEDULE)


@pytest.mark.django_db(transaction=True)
def test_it_keeps_a_task_paused_across_restarts() -> None:
    DatabaseScheduler(app=app, lazy=False)
    PeriodicTask.objects.filter(name="outbox").update(enabled=False)

    DatabaseScheduler(app=app, lazy=False)

    assert not PeriodicTask.objects.get(name="outbox").enabled
