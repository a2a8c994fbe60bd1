"""Dead events that their aggregates pass, under the policy ``skip``."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from outbox.deciding import deliveries_retry
from outbox.errors import ErrorClass, OutageError
from outbox.events import Event
from outbox.models import Delivery, DeliveryAttempt, Detour, Lane, TopicFigure
from outbox.relay import SubscriberRelay, relay_until_idle
from outbox.subscribers import Failure
from outbox.subscriptions import subscription_limit
from tests.outbox.collecting import Collector, Ledger
from tests.outbox.conftest import publish_all

pytestmark = [pytest.mark.feature("D9", "H2")]


@pytest.fixture
def skipping(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Collector, Ledger):
        monkeypatch.setattr(kind, "dead_policy", "skip")


@pytest.mark.usefixtures("skipping")
def test_an_aggregate_passes_its_dead_events_in_the_same_batch(collector: Collector) -> None:
    collector.refuse = lambda event: refused(event) if event.sequence in {2, 4} else None
    publish_all("bad", "bad", "bad", "bad", "bad")

    stepped(collector)

    assert collector.sequences() == {"bad": [1, 3, 5]}
    assert [(one.sequence, one.state) for one in Delivery.objects.order_by("sequence")] == [(2, "dead"), (4, "dead")]
    assert not Detour.objects.exists()
    assert list(TopicFigure.objects.values_list("processed", "errors")) == [(3, 2)]
    assert list(Lane.objects.exclude(errors=0).values_list("processed", "errors")) == [(3, 2)]
    assert list(DeliveryAttempt.objects.values_list("number", "outcome")) == [(1, "failed")] * 2


@pytest.mark.usefixtures("skipping")
def test_it_passes_dead_events_in_the_transaction_of_the_effects(ledger: Ledger) -> None:
    publish_all("good", "bad", "good", "bad", "good")
    ledger.ladder, ledger.poison = (), {"bad"}  # type: ignore[misc]

    stepped(ledger)

    with connection.cursor() as cursor:
        cursor.execute("SELECT aggregate_id, sequence FROM ledger ORDER BY sequence")
        assert cursor.fetchall() == [("good", 1), ("good", 2), ("good", 3)]
    assert list(Delivery.objects.order_by("sequence").values_list("sequence", "state")) == [(1, "dead"), (2, "dead")]
    assert not Detour.objects.exists()
    assert sum(Lane.objects.values_list("processed", flat=True)) == 3
    assert sum(Lane.objects.values_list("errors", flat=True)) == 2


@pytest.mark.usefixtures("skipping")
def test_an_aggregate_stops_at_what_may_succeed_later(collector: Collector) -> None:
    def refuse(event: Event) -> Failure | None:
        if event.sequence == 3:
            return refused(event, ErrorClass.RETRYABLE)
        return refused(event) if event.sequence == 2 else None

    collector.refuse = refuse
    collector.ladder = (3600.0,)
    publish_all("bad", "bad", "bad", "bad")

    stepped(collector)

    assert collector.sequences() == {"bad": [1]}
    found = Delivery.objects.order_by("sequence").values_list("sequence", "state")
    assert list(found) == [(2, "dead"), (3, "retrying")]
    assert Detour.objects.get().next_sequence == 3


@pytest.mark.usefixtures("skipping")
def test_an_outage_behind_a_dead_event_costs_no_attempt(collector: Collector) -> None:
    collector.refuse = lambda event: refused(event) if event.sequence == 2 else None
    publish_all("bad", "bad", "bad", "bad")

    def away_at_the_second_call(events: object) -> None:
        if len(collector.calls) == 1:
            collector.calls.append(0)
            raise OutageError("away")

    collector.before = away_at_the_second_call
    stepped(collector)
    after_outage = [(one.sequence, one.attempts) for one in Delivery.objects.all()]
    Lane.objects.update(lease_until="2000-01-01T00:00Z")
    relay_until_idle()

    assert after_outage == [(2, 1)]
    assert collector.sequences() == {"bad": [1, 3, 4]}
    assert list(Delivery.objects.values_list("sequence", "state", "attempts")) == [(2, "dead", 1)]
    assert not Detour.objects.exists()


@pytest.mark.usefixtures("skipping")
def test_it_finds_by_itself_who_raises_behind_a_dead_event(collector: Collector) -> None:
    collector.refuse = lambda event: refused(event) if event.sequence == 1 else None
    collector.ladder = ()
    publish_all("bad", "bad", "bad", "bad")

    def unforeseen(events: list[Event]) -> None:
        if events[0].sequence > 1 and any(event.sequence == 3 for event in events):
            raise ValueError("no")

    collector.before = unforeseen  # type: ignore[assignment]
    relay_until_idle()

    assert collector.sequences() == {"bad": [2, 4]}
    assert list(Delivery.objects.order_by("sequence").values_list("sequence", "state")) == [(1, "dead"), (3, "dead")]
    assert not Detour.objects.exists()


@pytest.mark.usefixtures("skipping")
def test_it_leaves_to_the_next_pass_what_would_keep_a_pause_waiting(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.worker.FOLLOWING_SECONDS", -1.0)
    collector.refuse = lambda event: refused(event) if event.sequence == 2 else None
    publish_all("bad", "bad", "bad")

    stepped(collector)
    first = collector.sequences()
    waiting = Detour.objects.get().next_sequence
    relay_until_idle()

    assert (first, waiting) == ({"bad": [1]}, 3)
    assert collector.sequences() == {"bad": [1, 3]}
    assert not Detour.objects.exists()


@pytest.mark.usefixtures("skipping")
@pytest.mark.parametrize("kind", [Collector, Ledger])
def test_it_keeps_the_successes_of_each_call(kind: type[Collector | Ledger], request: pytest.FixtureRequest) -> None:
    subscriber = request.getfixturevalue(kind.name)
    subscription_limit(name=kind.name, rate_limit=None, concurrency=None, keep_successes=True, actor="user:ann")
    if isinstance(subscriber, Collector):
        subscriber.refuse = lambda event: refused(event) if event.aggregate_id == "bad" else None
    else:
        subscriber.poison = {"bad"}  # type: ignore[misc]
    ids = publish_all("good", "bad", "good")

    stepped(subscriber)

    found = DeliveryAttempt.objects.order_by("event_id").values_list("event_id", "number", "outcome")
    assert list(found) == [(ids[0], 1, "delivered"), (ids[1], 1, "failed"), (ids[2], 1, "delivered")]


@pytest.mark.usefixtures("skipping")
def test_a_retry_of_a_passed_event_sends_its_aggregate_back(collector: Collector) -> None:
    collector.refuse = lambda event: refused(event) if event.sequence == 2 else None
    publish_all("bad", "bad", "bad", "bad")
    relay_until_idle()
    collector.refuse = lambda event: None

    deliveries_retry(ids=[Delivery.objects.get().pk], actor="user:ann")
    relay_until_idle()

    assert collector.sequences() == {"bad": [1, 3, 4, 2, 3, 4]}
    assert Delivery.objects.get().resolution == "delivered"


@pytest.mark.usefixtures("skipping")
def test_dead_events_cost_the_same_statements_however_many_they_are(collector: Collector) -> None:
    collector.refuse = lambda event: refused(event) if event.sequence == 1 else None
    counts = []

    for names in (["a0"], [f"b{n}" for n in range(50)]):
        publish_all(*names, *names)
        relay = SubscriberRelay(collector)
        with CaptureQueriesContext(connection) as captured:
            relay.step()
        relay.leave()
        counts.append(len(captured))

    assert counts[1] <= counts[0]
    assert Delivery.objects.filter(state="dead").count() == 51
    assert not Detour.objects.exists()


def refused(event: Event, error_class: ErrorClass = ErrorClass.PERMANENT) -> Failure:
    return Failure(event, error_class, "refused", "no")


def stepped(subscriber: Collector | Ledger) -> None:
    """One pass of a relay."""
    relay = SubscriberRelay(subscriber)
    relay.step()
    relay.leave()
