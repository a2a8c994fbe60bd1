from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from operations.models import AuditEntry
from zenskar.beat import BEAT_SCHEDULE
from zenskar.celery import app
from zenskar.schedule import TableScheduler, entries_install, entry_is_edited


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
    TableScheduler(app=app, lazy=False)

    drain = PeriodicTask.objects.get(name="outbox")
    assert (drain.interval.every, drain.interval.period) == (1, "seconds")
    assert drain.expire_seconds == 1
    assert set(PeriodicTask.objects.values_list("name", flat=True)) == set(BEAT_SCHEDULE)


@pytest.mark.django_db(transaction=True)
def test_it_keeps_a_task_paused_across_restarts() -> None:
    TableScheduler(app=app, lazy=False)
    PeriodicTask.objects.filter(name="outbox").update(enabled=False)

    TableScheduler(app=app, lazy=False)

    assert not PeriodicTask.objects.get(name="outbox").enabled


@pytest.fixture
def started() -> None:
    TableScheduler(app=app, lazy=False)


def entry(name: str) -> PeriodicTask:
    return PeriodicTask.objects.select_related("interval").get(name=name)


@pytest.mark.feature("C15", "F4")
@pytest.mark.django_db(transaction=True)
def test_it_keeps_what_an_operator_edited_until_it_is_reset(started: None) -> None:
    call_command("beat", "set", "messages_poll", "--every", "60")

    scheduler = TableScheduler(app=app, lazy=False)
    kept, sent = entry("messages_poll"), scheduler.schedule["messages_poll"].schedule.run_every.total_seconds()
    call_command("beat", "reset", "messages_poll")

    assert (kept.interval.every, sent) == (60, 60)
    assert entry("messages_poll").interval.every == BEAT_SCHEDULE["messages_poll"]["schedule"]
    assert not entry_is_edited(entry("messages_poll"))
    trail = AuditEntry.objects.filter(target="periodictask:messages_poll").order_by("pk")
    assert [one.action for one in trail] == ["periodictask.changed", "periodictask.reset"]


@pytest.mark.feature("C15")
@pytest.mark.django_db(transaction=True)
def test_it_keeps_what_was_edited_in_the_database_itself(started: None) -> None:
    slow, _ = IntervalSchedule.objects.get_or_create(every=5, period="minutes")
    PeriodicTask.objects.filter(name="sync").update(interval=slow)

    TableScheduler(app=app, lazy=False)

    assert entry("sync").interval == slow


@pytest.mark.feature("C15")
@pytest.mark.django_db(transaction=True)
def test_what_nobody_edited_follows_a_newer_version(started: None, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = {**BEAT_SCHEDULE["messages_poll"], "schedule": 120, "options": {"expire_seconds": 120}}
    monkeypatch.setitem(BEAT_SCHEDULE, "messages_poll", newer)
    monkeypatch.delitem(BEAT_SCHEDULE, "drifts_prune")

    TableScheduler(app=app, lazy=False)

    assert entry("messages_poll").interval.every == 120
    assert not PeriodicTask.objects.filter(name="drifts_prune").exists()


@pytest.mark.feature("C15")
@pytest.mark.django_db(transaction=True)
def test_it_makes_what_is_missing_and_changes_nothing_else(started: None) -> None:
    PeriodicTask.objects.filter(name="sync").delete()

    assert (entries_install(), entries_install()) == (1, 0)
    assert entry("sync").enabled


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("words", [("set", "nothing", "--every", "5"), ("set", "sync", "--every", "0"), ("reset", "x")])
def test_the_command_refuses_what_means_nothing(started: None, words: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        call_command("beat", *words)


@pytest.mark.django_db(transaction=True)
def test_the_command_lists(started: None, capsys: pytest.CaptureFixture[str]) -> None:
    PeriodicTask.objects.filter(name="sync").update(enabled=False)

    call_command("beat", "list", "--json")

    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(BEAT_SCHEDULE)
    assert (listed["sync"]["paused"], listed["sync"]["edited"]) == (True, False)


@pytest.mark.feature("F3")
@pytest.mark.django_db(transaction=True)
def test_the_console_resets(started: None) -> None:
    call_command("beat", "set", "sync", "--every", "9")
    client = Client()
    client.force_login(User.objects.create_superuser("boss"))
    row = entry("sync")

    listed = client.get(reverse("admin:django_celery_beat_periodictask_changelist"))
    client.post(
        reverse("admin:django_celery_beat_periodictask_changelist"),
        {"action": "reset", "_selected_action": [row.pk]},
    )

    assert b"edited" in listed.content
    assert entry("sync").interval.every == 1
