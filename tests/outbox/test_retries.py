"""Retries by detours: what a relay does with several of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.utils import timezone

from outbox.errors import ConfigurationError, DeliveryError, OutageError
from outbox.events import Event
from outbox.models import Delivery, Detour, Lane, Subscription
from outbox.relay import SubscriberRelay, relay_until_idle
from outbox.subscriptions import subscription_pause, subscription_resume
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import publish_all
from tests.outbox.test_races import Died, expire_leases

pytestmark = [pytest.mark.feature("D9", "D11", "H1", "H2")]


@pytest.mark.parametrize("away", [OutageError, ConfigurationError])
def test_it_loses_no_retry_when_the_other_side_goes_away_between_two_of_them(
    collector: Collector, away: type[DeliveryError]
) -> None:
    failed(collector, "a", "b", "c")

    def before(events: Sequence[Event]) -> None:
        if len(events) > 1:
            raise ValueError("unforeseen")
        if events[0].aggregate_id != "a":
            raise away("no")

    collector.before = before
    stepped(collector)
    during = collector.sequences(), dict(Delivery.objects.values_list("aggregate_id", "attempts"))
    collector.before = lambda events: None
    Subscription.objects.update(breaker_failures=0, breaker_until=None, paused_at=None)
    relay_until_idle()

    assert during == ({"a": [1]}, {"a": 2, "b": 1, "c": 1})
    assert collector.sequences() == {"a": [1], "b": [1], "c": [1]}
    assert set(Delivery.objects.values_list("state", "resolution")) == {("resolved", "delivered")}


def test_no_retry_runs_out_of_attempts_behind_one_that_kills_its_worker(collector: Collector) -> None:
    names = ("a", "killer", "c", "d")
    failed(collector, *names)

    def kill(events: Sequence[Event]) -> None:
        if any(event.aggregate_id == "killer" for event in events):
            raise Died

    collector.before = kill
    deaths = 0
    for _ in range(20):
        expire_leases()
        try:
            relay_until_idle()
        except Died:
            deaths += 1
        else:
            break

    assert collector.sequences() == {"a": [1], "c": [1], "d": [1]}
    assert Delivery.objects.exclude(state="resolved").get().aggregate_id == "killer"
    assert Delivery.objects.get(aggregate_id="killer").code == "worker_died"
    assert deaths <= len(collector.ladder)
    assert dict(Delivery.objects.exclude(aggregate_id="killer").values_list("aggregate_id", "attempts")) == {
        "a": 3,
        "c": 3,
        "d": 3,
    }


def test_a_pause_is_heard_before_all_that_is_due_was_tried_alone(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.worker.FOLLOWING_SECONDS", -1.0)
    failed(collector, "a", "b", "c")

    def pausing(events: Sequence[Event]) -> None:
        if len(events) > 1:
            raise ValueError("unforeseen")
        subscription_pause(name="collector", reason="x")

    collector.before = pausing
    relay_until_idle()
    during = collector.sequences(), dict(Delivery.objects.values_list("aggregate_id", "attempts"))
    subscription_resume(name="collector")
    relay_until_idle()

    assert during == ({"a": [1]}, {"a": 2, "b": 1, "c": 1})


def test_a_pause_is_heard_between_retries_and_new_events(collector: Collector) -> None:
    failed(collector, "a")
    publish_all("b")
    collector.before = lambda events: subscription_pause(name="collector", reason="x")

    relay_until_idle()

    assert collector.sequences() == {"a": [1]}


def test_a_pause_is_heard_between_lanes_that_are_delivered_alone(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.worker.FOLLOWING_SECONDS", -1.0)
    names = [f"c{n}" for n in range(20)]
    publish_all(*names)
    # As if workers had died: each lane is suspected.
    Lane.objects.update(strikes=1)
    collector.before = lambda events: subscription_pause(name="collector", reason="x")
    relay_until_idle()
    calls = len(collector.calls)
    collector.before = lambda events: None
    subscription_resume(name="collector")

    relay_until_idle()

    assert calls == 1
    assert collector.sequences() == {name: [1] for name in names}


def failed(collector: Collector, *aggregates: str) -> None:
    """Let one event of each fail; their retries are due."""
    collector.ladder = (3600.0,) * 3
    collector.refuse = refusing(*aggregates)
    publish_all(*aggregates)
    relay_until_idle()
    collector.refuse = lambda event: None
    Detour.objects.update(due=timezone.now() - timedelta(seconds=1))


def stepped(collector: Collector) -> None:
    """One pass of a relay."""
    relay = SubscriberRelay(collector)
    relay.step()
    relay.leave()
