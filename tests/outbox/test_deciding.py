from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import transaction

from operations.models import AuditEntry
from outbox.deciding import deliveries_retry, deliveries_retry_all, deliveries_skip
from outbox.errors import DecisionRefused, ErrorClass, InvalidEvent, InvalidFilter
from outbox.events import Event
from outbox.models import Delivery, Detour, LogEntry, Replacement, Retained, StoredEvent
from outbox.publishing import publish_many
from outbox.relay import SubscriberRelay, relay_until_idle
from outbox.replacing import delivery_replace, payload_diff
from outbox.republishing import log_republish
from outbox.selecting import DeliveryFilter, deliveries_plan
from outbox.subscribers import Failure
from tests.outbox.collecting import Collector, Ledger, refusing
from tests.outbox.conftest import new, publish_all
from tests.outbox.test_races import Threads

pytestmark = [pytest.mark.feature("D10", "A12")]


def strict_validator(type_: str, schema_version: int, before: Any, after: Any) -> None:
    if after.get("n") != 7:
        raise ValueError("n must be 7")


def refuse_only(aggregate: str, sequence: int) -> Any:
    def refuse(event: Event) -> Failure | None:
        if (event.aggregate_id, event.sequence) == (aggregate, sequence):
            return Failure(event, ErrorClass.PERMANENT, "refused", "no")
        return None

    return refuse


def test_it_retries_a_dead_delivery_with_a_whole_ladder_and_its_aggregate_follows(collector: Collector) -> None:
    collector.ladder = (0.0, 0.0)
    collector.refuse = refusing("bad")
    publish_all("bad", "bad", "good")
    relay_until_idle()
    delivery = Delivery.objects.get()
    first = deliveries_retry(ids=[delivery.pk], actor="user:ann", reason="again")
    relay_until_idle()
    delivery.refresh_from_db()
    again = (delivery.state, delivery.attempts, delivery.attempts_before)
    collector.refuse = lambda event: None
    deliveries_retry(ids=[delivery.pk], actor="user:ann")

    relay_until_idle()

    delivery.refresh_from_db()
    assert first == [delivery.pk]
    assert again == ("dead", 6, 3)
    assert (delivery.state, delivery.resolution, delivery.attempts) == ("resolved", "delivered", 7)
    assert collector.sequences() == {"good": [1], "bad": [1, 2]}
    assert list(delivery.timeline.order_by("id").values_list("number", flat=True)) == [1, 2, 3, 4, 5, 6, 7]
    entry = AuditEntry.objects.order_by("id")[0]
    assert (entry.action, entry.actor, entry.target) == ("delivery.retried", "user:ann", f"delivery:{delivery.pk}")


def test_it_retries_nothing_that_is_resolved_or_unknown(collector: Collector) -> None:
    collector.refuse = refusing("bad", error_class=ErrorClass.PERMANENT)
    publish_all("bad")
    relay_until_idle()
    delivery = Delivery.objects.get()
    deliveries_skip(ids=[delivery.pk], actor="user:ann", reason="obsolete")

    assert deliveries_retry(ids=[delivery.pk, 10**15], actor="user:ann") == []
    assert deliveries_skip(ids=[delivery.pk], actor="user:ann", reason="again") == []
    assert AuditEntry.objects.count() == 1


def test_it_skips_a_delivery_and_the_aggregate_goes_on(collector: Collector) -> None:
    collector.refuse = refuse_only("bad", 2)
    publish_all("bad", "bad", "bad")
    relay_until_idle()
    delivery = Delivery.objects.get()

    skipped = deliveries_skip(ids=[delivery.pk], actor="user:ann", reason="obsolete")
    relay_until_idle()

    delivery.refresh_from_db()
    assert skipped == [delivery.pk]
    assert collector.sequences() == {"bad": [1, 3]}
    assert (delivery.state, delivery.resolution, delivery.resolved_by) == ("resolved", "skipped", "user:ann")
    assert not Detour.objects.exists()


def test_a_retry_of_what_was_passed_over_sends_the_aggregate_back(collector: Collector, settings: LazySettings) -> None:
    settings.OUTBOX_DEAD_POLICY = {"collector": "skip"}
    collector.refuse = refuse_only("bad", 2)
    publish_all("bad", "bad", "bad", "good")
    relay_until_idle()
    collector.refuse = lambda event: None
    deliveries_retry(ids=[Delivery.objects.get().pk], actor="user:ann")
    publish_all("bad")

    relay_until_idle()

    # What came after it comes again, so that the newest state arrives last.
    assert collector.sequences()["bad"][-3:] == [2, 3, 4]
    assert Delivery.objects.get().state == "resolved"
    assert not Detour.objects.exists()


@pytest.mark.parametrize("fails", [True, False])
def test_a_delivery_that_is_skipped_while_it_is_on_its_way_stays_skipped(collector: Collector, fails: bool) -> None:
    collector.ladder = (0.0,) * 5
    collector.refuse = refusing("bad")
    publish_all("bad", "bad")
    SubscriberRelay(collector).step()
    under_way, go_on = threading.Event(), threading.Event()
    relay = Threads()

    def hold(events: Sequence[Event]) -> None:
        collector.before = lambda events: None
        collector.refuse = refuse_only("bad", 1) if fails else lambda event: None
        under_way.set()
        go_on.wait(timeout=60)

    from tests.outbox.test_races import expire_leases

    expire_leases()
    collector.before = hold
    relay.run(relay_until_idle)
    assert under_way.wait(timeout=60)
    skipped = deliveries_skip(ids=[Delivery.objects.get().pk], actor="user:ann", reason="obsolete")
    go_on.set()
    relay.join()
    relay_until_idle()

    delivery = Delivery.objects.get()
    assert skipped == [delivery.pk]
    assert (delivery.state, delivery.resolution) == ("resolved", "skipped")
    assert collector.sequences() == {"bad": [2]} if fails else {"bad": [1, 2]}
    assert not Detour.objects.exists()


def test_an_aggregate_that_is_sent_back_while_its_events_are_on_their_way_comes_again(collector: Collector) -> None:
    publish_all("a", "a", "a")
    relay_until_idle()
    first = LogEntry.objects.order_by("position")[0].position
    log_republish(subscriber="collector", first=first + 1, last=first + 1, actor="user:ann", reason="lost there")
    collector.got.clear()
    under_way, go_on = threading.Event(), threading.Event()
    relay = Threads()

    def hold(events: Sequence[Event]) -> None:
        collector.before = lambda events: None
        under_way.set()
        go_on.wait(timeout=60)

    collector.before = hold
    relay.run(relay_until_idle)
    assert under_way.wait(timeout=60)
    log_republish(subscriber="collector", first=first, last=first, actor="user:ann", reason="that one too")
    go_on.set()
    relay.join()
    relay_until_idle()

    assert collector.sequences() == {"a": [2, 3, 1, 2, 3]}
    assert not Detour.objects.exists()


@pytest.mark.feature("H1")
def test_nothing_overtakes_while_decisions_are_made_and_relays_run(collector: Collector) -> None:
    """Aggregates are sent back, retried and skipped while two relays deliver and a writer publishes."""
    publishing, over = threading.Event(), threading.Event()
    names = [f"c{n}" for n in range(8)]
    threads, relays = Threads(), Threads()
    failing = {(f"c{n}", s) for n in range(4) for s in (5, 11, 17)}
    collector.refuse = lambda event: (
        Failure(event, ErrorClass.PERMANENT, "refused", "no")
        if (event.aggregate_id, event.sequence) in failing
        else None
    )

    def write() -> None:
        for _ in range(30):
            publish_all(*names)

    def decide() -> None:
        rounds = 0
        while publishing.is_set() or rounds < 20:
            rounds += 1
            head = LogEntry.objects.order_by("-position").values_list("position", flat=True).first()
            if head:
                log_republish(
                    subscriber="collector", first=max(1, head - 60), last=head, actor="user:ann", reason="again"
                )
            for key, name, sequence in Delivery.objects.filter(state="dead").values_list(
                "pk", "aggregate_id", "sequence"
            ):
                if rounds % 2:
                    failing.discard((name, sequence))
                    deliveries_retry(ids=[key], actor="user:ann")
                else:
                    deliveries_skip(ids=[key], actor="user:ann", reason="obsolete")

    def relay() -> None:
        mine = SubscriberRelay(collector, resident=True)
        while mine.step() or not over.is_set() or mine.unsettled:
            pass
        mine.leave()

    publishing.set()
    threads.run(write)
    threads.run(decide)
    relays.run(relay)
    relays.run(relay)
    threads._threads[0].join()
    publishing.clear()
    threads.join()
    over.set()
    relays.join()
    failing.clear()
    while ids := list(Delivery.objects.filter(state="dead").values_list("pk", flat=True)[:1000]):
        deliveries_retry(ids=ids, actor="user:ann")
        relay_until_idle()
    relay_until_idle()

    assert not Detour.objects.exists()
    assert not Delivery.objects.exclude(state="resolved").exists()
    passed = {(one.aggregate_id, one.sequence) for one in Delivery.objects.filter(resolution="skipped")}
    for name, numbers in collector.sequences().items():
        assert numbers[-1] == 30, name
        # Forwards always to the next one, or over one that was skipped; backwards only when it was sent back.
        for one, two in pairwise(numbers):
            assert two <= one or all((name, between) in passed for between in range(one + 1, two)), (name, numbers)
        assert {*numbers, *(s for n, s in passed if n == name)} == set(range(1, 31))


def test_it_plans_and_retries_by_filter_in_sets(collector: Collector) -> None:
    collector.refuse = lambda event: Failure(
        event, ErrorClass.PERMANENT, "refused", "odd" if int(event.aggregate_id[1:]) % 2 else "even"
    )
    publish_all(*[f"c{n}" for n in range(30)])
    relay_until_idle()
    odd = Delivery.objects.get(aggregate_id="c1").fingerprint
    chosen = DeliveryFilter(subscriber="collector", fingerprint=odd)
    plan = deliveries_plan(chosen)
    frozen = DeliveryFilter.from_json({**chosen.as_json(), "upto": plan.upto})
    collector.refuse = lambda event: None

    done = deliveries_retry_all(chosen=frozen, actor="user:ann", reason="fixed")
    relay_until_idle()

    assert (plan.eligible, plan.not_eligible, done) == (15, {}, 15)
    assert sorted(int(name[1:]) % 2 for name in collector.sequences()) == [1] * 15
    entry = AuditEntry.objects.get(action="deliveries.retried")
    assert (entry.detail["count"], len(entry.detail["ids"])) == (15, 15)


def test_it_says_what_is_not_eligible_and_why(collector: Collector, settings: LazySettings) -> None:
    settings.OUTBOX_DEAD_POLICY = {"collector": "skip"}
    collector.refuse = refuse_only("a", 2)
    publish_all("a", "a", "a")
    relay_until_idle()
    first = LogEntry.objects.order_by("position")[0].position
    log_republish(subscriber="collector", first=first, last=first, actor="user:ann", reason="from the start")

    plan = deliveries_plan(DeliveryFilter())

    assert (plan.eligible, plan.not_eligible) == (0, {"waits behind an earlier event": 1})
    assert deliveries_retry(ids=[Delivery.objects.get().pk], actor="user:ann") == []


@pytest.mark.parametrize(
    "values",
    [
        {"colour": "red"},
        {"error_class": "bad luck"},
        {"ids": ["x"]},
        {"ids": [2**70]},
        {"ids": 5},
        {"since": "soon"},
        {"since": "2026-01-01"},
        {"states": ["resolved"]},
        {"topic": "a\0b"},
        {"code": "\ud800"},
        {"ids": "123"},
        {"ids": [1.9]},
        {"ids": [True]},
        {"ids": {"1": 2}},
        {"events": ["1"]},
        {"events": [-1]},
        {"upto": 1.5},
        {"upto": "7"},
        {"upto": True},
        {"topic": ["customers"]},
        {"topic": {"a": 1}},
        {"topic": 7},
        {"code": "x" * 5_000},
        {"error_class": ["permanent"]},
        {"states": "dead"},
        {"states": {"dead": 1}},
        {"states": [["dead"]]},
        {"states": None},
        {"since": 20260101},
        {"since": "0001-01-01T00:00:00+23:59"},
        {"until": "9999-12-31T23:59:59-23:59"},
    ],
)
def test_it_refuses_a_filter_that_means_nothing_and_names_the_condition(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidFilter, match=next(iter(values))):
        DeliveryFilter.from_json(values)


def test_a_filter_comes_back_as_it_was_written_down() -> None:
    chosen = DeliveryFilter(
        ids=(1, 2), topic="customers", since=datetime(2026, 1, 1, tzinfo=UTC), upto=7, states=("dead", "retrying")
    )

    assert DeliveryFilter.from_json(chosen.as_json()) == chosen
    assert DeliveryFilter.from_json(json.loads(json.dumps(chosen.as_json()))) == chosen


def test_a_filter_takes_no_moment_outside_of_the_calendar() -> None:
    with pytest.raises(InvalidFilter, match="since"):
        DeliveryFilter(since=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=23))))


@pytest.mark.feature("H4")
def test_it_publishes_an_edited_event_in_place_of_the_original(collector: Collector) -> None:
    collector.refuse = refuse_only("bad", 1)
    (original, _) = publish_all("bad", "bad")
    relay_until_idle()
    delivery = Delivery.objects.get()

    made = delivery_replace(delivery_id=delivery.pk, payload={"n": 2}, actor="user:ann", reason="typo")
    relay_until_idle()

    delivery.refresh_from_db()
    before, after = StoredEvent.objects.get(pk=original), StoredEvent.objects.get(pk=made.event_id)
    assert (before.payload, after.payload, after.sequence) == ('{"n":1}', '{"n":2}', 3)
    assert (after.causation_id, collector.got[-1].headers["replaces"]) == (str(before.uid), str(before.uid))
    assert made.diff == [{"pointer": "/n", "before": 1, "after": 2}]
    assert (delivery.state, delivery.resolution) == ("resolved", "replaced")
    assert collector.sequences() == {"bad": [2, 3]}
    entry = AuditEntry.objects.get()
    assert entry.action == "delivery.replaced"
    assert "before" not in str(entry.detail)


@pytest.mark.parametrize(
    "payload", [{"n": "two"}, {}, {"n": 1, "m": 2}, [], "text", {"n": [1]}, {"n": float("nan"), "x": 1}]
)
def test_it_publishes_nothing_of_another_shape(collector: Collector, payload: Any) -> None:
    collector.refuse = refuse_only("bad", 1)
    publish_all("bad")
    relay_until_idle()
    delivery = Delivery.objects.get()

    with pytest.raises(InvalidEvent):
        delivery_replace(delivery_id=delivery.pk, payload=payload, actor="user:ann", reason="typo")

    delivery.refresh_from_db()
    assert delivery.state == "dead"
    assert StoredEvent.objects.count() == 1
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"n": None},
        {"who": "good"},
        {"who": None},
        {"deep": {"a": None, "b": [1, None]}},
        {"deep": {"a": 1, "b": [None, None]}},
        {"deep": {"a": 1, "b": [1, None, None]}},
        {"deep": {"a": 1, "b": [1, None], "c": None}},
    ],
)
def test_it_publishes_no_null_where_there_was_none_and_nothing_about_something_else(
    collector: Collector, changes: dict[str, Any]
) -> None:
    before = {"who": "bad", "n": 1, "note": None, "deep": {"a": 1, "b": [1, None]}}
    collector.refuse = refuse_only("bad", 1)
    with transaction.atomic():
        publish_many([new("bad", payload=before)])
    relay_until_idle()
    delivery = Delivery.objects.get()

    with pytest.raises(InvalidEvent):
        delivery_replace(delivery_id=delivery.pk, payload={**before, **changes}, actor="user:ann", reason="typo")
    made = delivery_replace(delivery_id=delivery.pk, payload={**before, "n": 2}, actor="user:ann", reason="typo")

    assert [one["pointer"] for one in made.diff] == ["/n"]


def test_a_validator_of_the_type_decides_instead(collector: Collector, settings: LazySettings) -> None:
    settings.OUTBOX_PAYLOAD_VALIDATORS = {"customer.*": "tests.outbox.test_deciding.strict_validator"}
    collector.refuse = refuse_only("bad", 1)
    publish_all("bad")
    relay_until_idle()
    delivery = Delivery.objects.get()
    with pytest.raises(InvalidEvent, match="n must be 7"):
        delivery_replace(delivery_id=delivery.pk, payload={"n": 8}, actor="user:ann", reason="typo")

    made = delivery_replace(delivery_id=delivery.pk, payload={"n": 7, "m": 1}, actor="user:ann", reason="typo")

    assert [one["pointer"] for one in made.diff] == ["/m", "/n"]


def test_it_replaces_nothing_without_a_difference_or_twice(collector: Collector) -> None:
    collector.refuse = refuse_only("bad", 1)
    publish_all("bad")
    relay_until_idle()
    delivery = Delivery.objects.get()
    with pytest.raises(DecisionRefused, match="Nothing was changed"):
        delivery_replace(delivery_id=delivery.pk, payload={"n": 1}, actor="user:ann", reason="typo")
    delivery_replace(delivery_id=delivery.pk, payload={"n": 2}, actor="user:ann", reason="typo")

    with pytest.raises(DecisionRefused, match="is not open"):
        delivery_replace(delivery_id=delivery.pk, payload={"n": 3}, actor="user:ann", reason="typo")

    assert Replacement.objects.count() == 1


def test_a_diff_names_each_leaf() -> None:
    before = {"a": {"b": 1, "c/d": [1]}, "gone": 1, "same": 1}
    after = {"a": {"b": True, "c/d": [2]}, "new": None, "same": 1}

    assert payload_diff(before, after) == [
        {"pointer": "/a/b", "before": 1, "after": True},
        {"pointer": "/a/c~1d", "before": [1], "after": [2]},
        {"pointer": "/gone", "before": 1},
        {"pointer": "/new", "after": None},
    ]


@pytest.mark.feature("H1")
def test_it_publishes_a_range_again_in_order_and_up_to_the_newest(collector: Collector) -> None:
    publish_all("a", "b", "a", "b", "a")
    relay_until_idle()
    positions = list(LogEntry.objects.order_by("position").values_list("position", flat=True))
    collector.got.clear()

    counted = log_republish(
        subscriber="collector", first=positions[2], last=positions[2], actor="user:ann", reason="x", apply=False
    )
    nothing = relay_until_idle()
    done = log_republish(
        subscriber="collector", first=positions[2], last=positions[2], actor="user:ann", reason="lost there"
    )
    relay_until_idle()

    assert nothing == 0
    assert counted == done
    assert (done.events, done.aggregates) == (1, 1)
    assert collector.sequences() == {"a": [2, 3]}
    assert AuditEntry.objects.get().action == "log.republished"


def test_new_events_wait_behind_an_aggregate_that_was_sent_back(collector: Collector) -> None:
    collector.batch_size = 1
    publish_all("a", "a", "a")
    relay = SubscriberRelay(collector)
    while relay.step():
        pass
    first = LogEntry.objects.order_by("position")[0].position
    log_republish(subscriber="collector", first=first, last=first, actor="user:ann", reason="x")
    publish_all("a", "a")
    relay._retries.forget()

    while relay.step():
        pass
    relay.leave()

    assert collector.sequences() == {"a": [1, 2, 3, 1, 2, 3, 4, 5]}


def test_a_failure_of_a_new_event_does_not_undo_that_its_aggregate_was_sent_back(collector: Collector) -> None:
    collector.refuse = refuse_only("a", 3)
    publish_all("a", "a")
    relay = SubscriberRelay(collector)
    while relay.step():
        pass
    relay._retries._next_look = float("inf")
    first = LogEntry.objects.order_by("position")[0].position
    log_republish(subscriber="collector", first=first, last=first, actor="user:ann", reason="x")
    publish_all("a")
    while relay.step():
        pass
    relay.leave()
    delivery = Delivery.objects.get()
    collector.refuse = lambda event: None
    deliveries_retry(ids=[delivery.pk], actor="user:ann")

    relay_until_idle()

    assert (delivery.sequence, delivery.state) == (3, "dead")
    assert collector.sequences() == {"a": [1, 2, 1, 2, 3]}
    assert Delivery.objects.get().resolution == "delivered"


def test_it_publishes_nothing_again_to_who_takes_each_event_once(ledger: Ledger) -> None:
    publish_all("a")
    relay_until_idle()

    with pytest.raises(DecisionRefused, match="once"):
        log_republish(subscriber="ledger", first=1, last=10, actor="user:ann", reason="x")


@pytest.mark.parametrize(("first", "last"), [(0, 5), (5, 4), (1, 2_000_000)])
def test_it_refuses_a_range_that_is_none(collector: Collector, first: int, last: int) -> None:
    with pytest.raises(DecisionRefused):
        log_republish(subscriber="collector", first=first, last=last, actor="user:ann", reason="x")


def test_it_refuses_what_is_not_retained(collector: Collector) -> None:
    Retained.objects.create(first_event_id=100, first_position=100)

    with pytest.raises(DecisionRefused, match="from position 100"):
        log_republish(subscriber="collector", first=99, last=120, actor="user:ann", reason="x")


def test_it_says_no_to_too_many_at_once(collector: Collector) -> None:
    with pytest.raises(ValueError, match="1001"):
        deliveries_retry(ids=list(range(1001)), actor="user:ann")
