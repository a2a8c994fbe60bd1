from __future__ import annotations

import pytest
from django.db import OperationalError, connection, transaction

from outbox.errors import ErrorClass
from outbox.models import Delivery, Detour, Lane, LogEntry, Subscription
from outbox.publishing import publish, publish_many
from outbox.relay import SubscriberRelay, relay_once, relay_until_idle
from outbox.status import EventStatus, events_statuses, wait_for
from outbox.subscribers import Failure
from outbox.subscriptions import subscription_pause, subscription_resume
from tests.outbox.collecting import Collector, Ledger, refusing
from tests.outbox.conftest import new, publish_all

pytestmark = [pytest.mark.feature("H1")]


@pytest.mark.feature("D6")
def test_it_delivers_each_event_once_and_in_the_order_of_its_aggregate(collector: Collector) -> None:
    names = [f"c{n % 30}" for n in range(300)]
    publish_all(*names)

    count = relay_once()

    assert count == 300
    assert len(collector.got) == 300
    assert all(numbers == list(range(1, 11)) for numbers in collector.sequences().values())
    assert relay_once() == 0


def test_it_hands_over_the_event_as_it_was_published(collector: Collector) -> None:
    with transaction.atomic():
        event_id = publish(
            new("x", payload={"z": 1.0, "a": "ü"}, headers={"priority": "bulk"}, origin="import", causation_id="req-1")
        )

    relay_once()

    (event,) = collector.got
    assert (event.id, event.sequence, event.topic, event.type) == (event_id, 1, "customers", "customer.updated")
    assert event.payload_json == '{"z":1.0,"a":"ü"}'.encode()
    assert (event.headers, event.origin, event.causation_id) == ({"priority": "bulk"}, "import", "req-1")


def test_it_skips_what_was_rolled_back(collector: Collector) -> None:
    publish_all("a")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        publish_many([new("a"), new("b")])
        raise ZeroDivisionError
    publish_all("a", "b")

    relay_once()

    assert collector.sequences() == {"a": [1, 2], "b": [1]}


@pytest.mark.feature("H2")
def test_it_holds_back_only_the_aggregate_that_failed(collector: Collector) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad", "good", "bad", "good")
    relay_once()
    publish_all("bad", "good")

    relay_until_idle()

    assert collector.sequences() == {"good": [1, 2, 3]}
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.sequence, delivery.attempts, delivery.code) == ("dead", 1, 1, "refused")
    assert delivery.envelope["payload"] == {"n": 1}
    assert Detour.objects.get().due is None


@pytest.mark.feature("H2", "D9")
def test_it_returns_to_the_log_in_order_after_the_failure_is_over(collector: Collector) -> None:
    ids = publish_all("bad", "good", "bad")
    collector.ladder = (3600.0,)
    collector.refuse = refusing("bad")
    relay_once()
    ids += publish_all("bad", "good")
    relay_once()
    statuses = {event: rows[0].status for event, rows in events_statuses(ids).items()}
    collector.refuse = lambda event: None
    Detour.objects.update(due="2000-01-01T00:00Z")

    relay_until_idle()

    assert [statuses[event].value for event in ids] == ["retrying", "processed", "blocked", "blocked", "processed"]
    assert collector.sequences() == {"good": [1, 2], "bad": [1, 2, 3]}
    assert Delivery.objects.get().state == "resolved"
    assert not Detour.objects.exists()
    assert {rows[0].status for rows in events_statuses(ids).values()} == {EventStatus.PROCESSED}


@pytest.mark.feature("D9")
def test_it_declares_a_delivery_dead_when_the_ladder_ends(collector: Collector) -> None:
    collector.ladder = (0.0, 0.0, 0.0)
    collector.refuse = refusing("bad")
    publish_all("bad")

    relay_until_idle()

    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempts) == ("dead", 4)
    assert list(delivery.timeline.order_by("number").values_list("number", flat=True)) == [1, 2, 3, 4]
    assert sum(Lane.objects.values_list("retries", flat=True)) == 3


@pytest.mark.feature("D11")
def test_it_uses_no_attempt_while_the_other_side_is_away(collector: Collector) -> None:
    collector.refuse = lambda event: Failure(event, ErrorClass.OUTAGE, "away", "nobody answers")
    publish_all("a", "b")
    relay_once()
    relay_once()
    broken = Subscription.objects.get()
    collector.refuse = lambda event: None
    Subscription.objects.update(breaker_until="2000-01-01T00:00Z")

    relay_until_idle()

    assert broken.breaker_failures == 1
    assert len(collector.calls) > 1
    assert collector.sequences() == {"a": [1], "b": [1]}
    assert not Delivery.objects.exists()
    assert Subscription.objects.get().breaker_failures == 0


def test_it_sends_again_from_the_first_event_that_an_outage_hit(collector: Collector) -> None:
    publish_all(*["a"] * 5)
    collector.refuse = lambda event: (
        Failure(event, ErrorClass.OUTAGE, "away", "nobody answers") if event.sequence >= 3 else None
    )
    relay = SubscriberRelay(collector)
    relay.step()
    relay.leave()
    collector.refuse = lambda event: None

    relay_until_idle()

    assert collector.sequences() == {"a": [1, 2, 3, 4, 5]}


def test_it_pauses_a_subscriber_whose_settings_are_wrong(collector: Collector) -> None:
    publish_all("a")
    collector.refuse = lambda event: Failure(event, ErrorClass.CONFIGURATION, "denied", "no such key")
    relay_once()
    reason = Subscription.objects.get().paused_reason
    collector.refuse = lambda event: None
    paused = relay_once()
    subscription_resume(name="collector")

    relay_once()

    assert reason == "denied: no such key"
    assert paused == 0
    assert collector.sequences() == {"a": [1]}
    assert not Delivery.objects.exists()


def test_it_gives_nothing_to_a_paused_subscriber(collector: Collector) -> None:
    publish_all("a")
    subscription_pause(name="collector", reason="maintenance")

    assert relay_once() == 0
    assert collector.got == []


def test_it_finds_the_event_that_makes_a_batch_raise(collector: Collector) -> None:
    def explode(events: object) -> None:
        if any(event.aggregate_id == "bad" for event in events):  # type: ignore[attr-defined]
            raise KeyError("shape")

    collector.ladder = ()
    collector.before = explode
    publish_all(*[f"c{n}" for n in range(200)], "bad", "after")

    relay_until_idle()

    delivery = Delivery.objects.get()
    assert (delivery.aggregate_id, delivery.code, delivery.state) == ("bad", "KeyError", "dead")
    assert "explode" in delivery.traceback
    assert len(collector.sequences()) == 201


@pytest.mark.feature("H3")
def test_it_commits_effect_and_cursor_together(ledger: Ledger) -> None:
    ids = publish_all("a", "b", "a")

    relay_once()

    with connection.cursor() as cursor:
        cursor.execute("SELECT event_id FROM ledger ORDER BY nth")
        assert [row[0] for row in cursor.fetchall()] == ids
    assert [event.id for event in ledger.committed] == ids


@pytest.mark.feature("H2")
def test_it_cuts_a_failing_transactional_batch_down_to_the_event(ledger: Ledger) -> None:
    Ledger.poison.add("bad")
    publish_all("a", "bad", "b", "bad", "c")

    relay_until_idle()

    with connection.cursor() as cursor:
        cursor.execute("SELECT aggregate_id FROM ledger ORDER BY nth")
        assert [row[0] for row in cursor.fetchall()] == ["a", "b", "c"]
    delivery = Delivery.objects.get()
    assert (delivery.aggregate_id, delivery.sequence, delivery.state, delivery.attempts) == ("bad", 1, "dead", 3)


def test_it_finds_who_broke_a_deferred_constraint(ledger: Ledger) -> None:
    ids = publish_all("a", "b", "c")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO ledger (event_id, aggregate_id, amount) VALUES (%s, 'old', 1)", [ids[1]])

    relay_until_idle()

    assert Delivery.objects.get().aggregate_id == "b"
    assert [event.id for event in ledger.committed] == [ids[0], ids[2]]


def test_it_blames_no_event_when_the_database_is_in_trouble(ledger: Ledger) -> None:
    publish_all("a")
    failing = [True]

    def conflict(events: object) -> None:
        if failing.pop() if failing else False:
            with connection.cursor() as cursor:
                cursor.execute("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40001'; END $$")

    ledger.before = conflict
    with pytest.raises(OperationalError):
        relay_once()

    relay_once()

    assert len(ledger.committed) == 1
    assert not Delivery.objects.exists()


def test_it_passes_topics_that_the_subscriber_did_not_ask_for(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Collector, "topics", frozenset({"orders"}))
    with transaction.atomic():
        publish_many([new("a"), new("a", topic="orders"), new("b")])

    relay_until_idle()

    assert [event.topic for event in collector.got] == ["orders"]
    assert relay_once() == 0


def test_it_moves_quiet_lanes_to_the_head(collector: Collector) -> None:
    publish_all("a")

    relay_once()

    head = max(LogEntry.objects.values_list("position", flat=True))
    assert set(Lane.objects.values_list("cursor", flat=True)) == {head}


def test_it_starts_a_new_subscriber_at_the_head_when_it_asks_for_it(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_all("a")
    relay_once()
    Subscription.objects.all().delete()
    monkeypatch.setattr(Collector, "start_at", "head")
    collector.got.clear()
    relay_once()
    publish_all("b")

    relay_until_idle()

    assert collector.sequences() == {"b": [1]}


def test_it_says_when_an_event_went_through(collector: Collector) -> None:
    (first,) = publish_all("a")
    before = wait_for(first, "collector", 0)
    relay_once()

    assert before is EventStatus.PENDING
    assert wait_for(first, "collector", 1) is EventStatus.PROCESSED
    assert events_statuses([first])[first][0].processed_at is not None


@pytest.mark.feature("B1")
def test_it_forgets_what_it_knew_of_a_database_whose_place_another_took(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = SubscriberRelay(collector)
    publish_all("a")
    while relay.step():
        pass
    assert connection.connection is not None
    connection.connection.close()
    connection.close()
    # What a server restored from an older backup is: another history, in which numbers come again.
    connection.ensure_connection()
    assert connection.connection is not None
    # Put back afterwards: the session stays in the pool.
    monkeypatch.setattr(connection.connection, "history", "another")
    (second,) = publish_all("b")
    relay._sequencer._floor = second

    relay.step()

    assert [event.aggregate_id for event in collector.got] == ["a", "b"]
