from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from operations.models import AuditEntry, Operation
from outbox.errors import ErrorClass
from outbox.models import Delivery, Detour, Lane, LogEntry, StoredEvent, Subscription
from outbox.relay import relay_until_idle
from outbox.verifying import outbox_verify
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import publish_all

pytestmark = [pytest.mark.feature("A12", "D10"), pytest.mark.django_db(transaction=True)]


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """A command's exit status and what it printed."""
    capsys.readouterr()
    status = 0
    try:
        call_command(*words)
    except SystemExit as exc:
        status = int(exc.code or 0)
    return status, capsys.readouterr().out


@pytest.fixture
def dead(collector: Collector) -> Delivery:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad", "good", "bad")
    relay_until_idle()
    return Delivery.objects.get()


def test_status_tells_what_waits_for_people(dead: Delivery, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run("outbox_status", capsys=capsys)
    again, body = run("outbox_status", "--json", capsys=capsys)

    assert (status, again) == (1, 1)
    assert "collector: active" in text
    assert f"newest delivery {dead.pk}" in text
    document = json.loads(body)
    assert (document["dead"], document["groups"][0]["count"]) == (1, 1)
    assert document["subscribers"][0]["backlog_events"] == 0
    assert document["subscribers"][0]["blocked_events"] == 1
    assert "1 wait behind those" in text


def test_status_ends_well_when_nothing_does(collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    publish_all("a")
    relay_until_idle()

    assert run("outbox_status", "--lag", "60", capsys=capsys)[0] == 0


def test_retry_only_counts_without_apply(
    collector: Collector, dead: Delivery, capsys: pytest.CaptureFixture[str]
) -> None:
    collector.refuse = lambda event: None
    counted = run("outbox_retry", "--subscriber", "collector", capsys=capsys)
    before = Delivery.objects.get().state

    done = run("outbox_retry", str(dead.pk), "--apply", "--json", capsys=capsys)
    relay_until_idle()

    assert counted == (0, "1 would be retried. Add --apply.\n")
    assert before == "dead"
    assert done[0] == 0
    assert json.loads(done[1]) == {"eligible": 1, "not_eligible": {}, "retried": 1, "applied": True}
    assert collector.sequences()["bad"] == [1, 2]
    assert AuditEntry.objects.get().actor.startswith("shell")


def test_retry_skips_as_well(collector: Collector, dead: Delivery, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandError, match="--reason"):
        call_command("outbox_retry", "--all", "--skip", "--apply")

    status, text = run("outbox_retry", "--all", "--skip", "--reason", "obsolete", "--apply", capsys=capsys)

    assert (status, text) == (0, "1 skipped\n")
    assert Delivery.objects.get().resolved_reason == "obsolete"


def test_retry_of_nothing_ends_badly(collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("outbox_retry", "--code", "nothing", capsys=capsys)[0] == 1


@pytest.mark.parametrize(
    "words",
    [
        ["outbox_retry"],
        ["outbox_retry", "x"],
        ["outbox_retry", "--since", "soon"],
        ["outbox_retry", "--since", "0001-01-01T00:00:00+23:59"],
        ["outbox_replay", "--until", "9999-12-31T23:59:59-23:59"],
        ["outbox_pause", "collector", "--reason", "x", "--until", "9999-12-31T23:59:59-23:59"],
        ["outbox_retry", "--event", "-1"],
        ["outbox_retry", "--all", "--limit", "0"],
        ["outbox_replay", "--all", "--apply"],
        ["outbox_replay", "--from", "1"],
        ["outbox_replay", "--from", "5", "--to", "2", "--subscriber", "collector"],
        ["outbox_replay", "--from", "1", "--to", "2", "--subscriber", "nobody"],
        ["outbox_pause", "nobody", "--reason", "x"],
        ["outbox_pause", "collector", "--reason", " "],
        ["outbox_pause", "collector", "--reason", "x", "--until", "2001-01-01"],
        ["outbox_resume", "nobody"],
    ],
)
def test_bad_words_are_one_line(collector: Collector, words: list[str]) -> None:
    with pytest.raises(CommandError) as found:
        call_command(*words)

    assert "\n" not in str(found.value)
    assert not AuditEntry.objects.exists()


@pytest.mark.feature("H4")
def test_replay_makes_an_operation(dead: Delivery, capsys: pytest.CaptureFixture[str]) -> None:
    counted = run("outbox_replay", "--all", capsys=capsys)
    done = run("outbox_replay", "--all", "--reason", "fixed", "--rate", "5", "--apply", "--json", capsys=capsys)

    assert counted == (0, "1 would be replayed. Add --apply and --reason.\n")
    assert json.loads(done[1])["state"] == "running"
    operation = Operation.objects.get()
    assert (operation.kind, operation.rate, operation.reason) == ("outbox.replay", 5, "fixed")


def test_replay_publishes_a_range_again(collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    publish_all("a", "a")
    relay_until_idle()
    first, last = sorted(LogEntry.objects.values_list("position", flat=True))
    words = ["outbox_replay", "--subscriber", "collector", "--from", str(first), "--to", str(last)]
    counted = run(*words, capsys=capsys)
    before = relay_until_idle()

    done = run(*words, "--reason", "lost there", "--apply", capsys=capsys)
    relay_until_idle()

    assert (counted[0], before, done[0]) == (0, 0, 0)
    assert collector.sequences() == {"a": [1, 2, 1, 2]}


@pytest.mark.feature("D11")
def test_pause_and_resume(collector: Collector, capsys: pytest.CaptureFixture[str]) -> None:
    paused = run("outbox_pause", "collector", "--reason", "x", "--until", "2999-01-01T00:00", capsys=capsys)
    status = run("outbox_status", capsys=capsys)[0]
    resumed = run("outbox_resume", "collector", "--probe", "--json", capsys=capsys)

    assert paused == (0, "collector is paused until 2999-01-01 00:00:00 UTC\n")
    assert status == 1
    assert json.loads(resumed[1])["state"] == "active"
    assert Subscription.objects.get().paused_at is None


def broken_lanes() -> None:
    Lane.objects.filter(lane__in=[3, 4]).delete()


def broken_places() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM outbox_log WHERE event_id = (SELECT max(event_id) FROM outbox_log)")


def broken_events() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM outbox_event WHERE id = (SELECT max(id) FROM outbox_event)")


def broken_order() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_event SET sequence = 9 WHERE id = (SELECT max(id) FROM outbox_event)")


def broken_lane() -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE outbox_event SET lane = (lane + 1) % 64 WHERE id = (SELECT max(id) FROM outbox_event)")


def broken_cursor() -> None:
    Lane.objects.filter(lane=7).update(cursor=10**12)


def broken_detour() -> None:
    Delivery.objects.update(state="resolved", resolution="skipped")


def broken_delivery() -> None:
    Delivery.objects.update(state="retrying")
    Detour.objects.all().delete()


@pytest.mark.feature("H1")
@pytest.mark.parametrize(
    ("breaks", "checks", "repaired"),
    [
        (broken_lanes, {"lanes": 2}, True),
        (broken_places, {"unplaced": 1}, True),
        (broken_events, {"missing": 1}, False),
        (broken_order, {"order": 1}, False),
        (broken_lane, {"wrong_lane": 1, "hash": 1}, False),
        (broken_cursor, {"cursors_ahead": 1}, False),
        (broken_detour, {"stuck_detours": 1}, True),
        (broken_delivery, {"lost_deliveries": 1}, True),
    ],
)
def test_verify_finds_and_repairs(
    dead: Delivery, capsys: pytest.CaptureFixture[str], breaks: Any, checks: dict[str, int], repaired: bool
) -> None:
    sound = run("outbox_verify", capsys=capsys)
    breaks()

    looked = run("outbox_verify", "--json", "--whole", capsys=capsys)
    applied = run("outbox_verify", "--apply", capsys=capsys)
    again = run("outbox_verify", capsys=capsys)

    assert sound == (0, "all fits together\n")
    assert looked[0] == 1
    assert {one["check"]: one["count"] for one in json.loads(looked[1]) if one["count"]} == checks
    assert (applied[0], again[0]) == ((0, 0) if repaired else (1, 1))
    assert AuditEntry.objects.filter(action="outbox.repaired").exists() is repaired


def test_what_verify_repaired_is_delivered(collector: Collector) -> None:
    publish_all("a")
    relay_until_idle()
    broken_places()

    outbox_verify(apply=True, actor="user:ann")
    relay_until_idle()

    assert StoredEvent.objects.count() == 1
    assert collector.sequences() == {"a": [1, 1]}
