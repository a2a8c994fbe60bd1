"""Publish, deliver, fail, retry, skip, pause, crash in any order, against a model of what may arrive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from outbox.deciding import deliveries_retry, deliveries_skip
from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.models import Delivery, Detour, Lane, LogEntry, Subscription
from outbox.publishing import publish_many
from outbox.relay import SubscriberRelay, relay_until_idle
from outbox.replacing import delivery_replace
from outbox.republishing import log_republish
from outbox.subscribers import Failure
from outbox.subscriptions import subscription_pause, subscription_resume
from outbox.verifying import outbox_verify
from tests.outbox.collecting import Collector
from tests.outbox.conftest import new, only
from tests.outbox.test_races import Died

NAMES = ("a", "b")
TABLES = (
    "outbox_event, outbox_log, outbox_unsequenced, outbox_aggregate, outbox_subscription, outbox_lane,"
    " outbox_watermark, outbox_relay, outbox_delivery, outbox_attempt, outbox_detour, outbox_topic_figure,"
    " outbox_duration_figure,"
    " outbox_replacement, operations_auditentry"
)


class LogMachine(RuleBasedStateMachine):
    """The model: how many events of each aggregate exist, which of them fail, and which a person gave up.

    What must hold at every moment: of each aggregate the events arrive one after the other, none is left out but what
    was given up or (under the policy ``skip``) is dead, and a step back happens only after somebody sent it back.
    """

    policy = "block"
    monkeypatch: pytest.MonkeyPatch

    def __init__(self) -> None:
        super().__init__()
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {TABLES}")
        self.published = dict.fromkeys(NAMES, 0)
        self.failing: set[tuple[str, int]] = set()
        self.given_up: set[tuple[str, int]] = set()
        self.sent_back = 0
        self.crash_in = 0
        self.paused = False
        self.collector = Collector()
        self.collector.ladder = (0.0,)
        self.collector.batch_size = 1
        self.collector.refuse = self.refuse
        self.collector.before = self.before
        only(self.monkeypatch, self.collector)
        self.relay = SubscriberRelay(self.collector)

    def refuse(self, event: Event) -> Failure | None:
        if (event.aggregate_id, event.sequence) in self.failing:
            return Failure(event, ErrorClass.RETRYABLE, "no", "no")
        return None

    def before(self, events: Sequence[Event]) -> None:
        if self.crash_in:
            self.crash_in -= 1
            if not self.crash_in:
                raise Died

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=8))
    def publish(self, names: list[str]) -> None:
        with transaction.atomic():
            publish_many([new(name) for name in names])
        for name in names:
            self.published[name] += 1

    @rule(name=st.sampled_from(NAMES), ahead=st.integers(1, 3))
    def let_fail(self, name: str, ahead: int) -> None:
        self.failing.add((name, self.published[name] + ahead))

    @rule()
    def let_nothing_fail(self) -> None:
        self.failing.clear()

    @rule(steps=st.integers(1, 4))
    def deliver(self, steps: int) -> None:
        Detour.objects.filter(due__isnull=False).update(due=timezone.now() - timedelta(seconds=1))
        self.relay._retries.forget()
        got = len(self.collector.got)
        try:
            for _ in range(steps):
                self.relay.step()
        except Died:
            # Another worker takes over when the dead one's leases have run out.
            Lane.objects.update(lease_until="2000-01-01T00:00Z")
            self.sent_back += 1
            self.relay = SubscriberRelay(self.collector)
        if self.paused:
            assert len(self.collector.got) == got

    @rule(calls=st.integers(1, 3))
    def let_the_worker_die(self, calls: int) -> None:
        self.crash_in = calls

    @rule()
    def change_workers(self) -> None:
        self.relay.leave()
        self.relay = SubscriberRelay(self.collector)

    @rule(retry=st.booleans(), which=st.integers(0, 5))
    def decide(self, retry: bool, which: int) -> None:
        found = list(Delivery.objects.exclude(state="resolved").order_by("pk"))
        if not found:
            return
        one = found[which % len(found)]
        if retry:
            if deliveries_retry(ids=[one.pk], actor="user:ann"):
                self.sent_back += 1
        elif deliveries_skip(ids=[one.pk], actor="user:ann", reason="x"):
            self.given_up.add((one.aggregate_id, one.sequence))

    @rule(which=st.integers(0, 5), value=st.integers(2, 9))
    def replace(self, which: int, value: int) -> None:
        found = [
            one
            for one in Delivery.objects.exclude(state="resolved").order_by("pk")
            if not Detour.objects.filter(aggregate_id=one.aggregate_id, next_sequence__lt=one.sequence).exists()
        ]
        if found:
            one = found[which % len(found)]
            if one.envelope["payload"] != {"n": value}:
                delivery_replace(delivery_id=one.pk, payload={"n": value}, actor="user:ann", reason="x")
                self.given_up.add((one.aggregate_id, one.sequence))
                self.published[one.aggregate_id] += 1

    @rule(back=st.integers(0, 20))
    def send_back(self, back: int) -> None:
        head = LogEntry.objects.order_by("-position").values_list("position", flat=True).first()
        if head:
            first = max(1, head - back)
            log_republish(subscriber="collector", first=first, last=head, actor="user:ann", reason="x")
            self.sent_back += 1

    @precondition(lambda self: not self.paused)
    @rule()
    def pause(self) -> None:
        subscription_pause(name="collector", reason="x")
        self.paused = True

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        subscription_resume(name="collector")
        self.paused = False

    @invariant()
    def it_arrives_in_order(self) -> None:
        passed = set(self.given_up)
        if self.policy == "skip":
            passed |= {(one.aggregate_id, one.sequence) for one in Delivery.objects.filter(state="dead")}
            passed |= {(one.aggregate_id, one.sequence) for one in Delivery.objects.filter(attempts__gt=1)}
        for name, numbers in self.collector.sequences().items():
            last = 0
            for number in numbers:
                if number > last:
                    between = {(name, one) for one in range(last + 1, number)}
                    assert between <= passed, (name, numbers, passed)
                else:
                    assert self.sent_back, (name, numbers)
                last = number

    def teardown(self) -> None:
        """In the end everything is let through, and everything that was not given up has arrived, the newest last."""
        self.failing.clear()
        self.crash_in = 0
        subscription_resume(name="collector")
        self.relay.leave()
        for _ in range(20):
            Detour.objects.filter(due__isnull=False).update(due=timezone.now() - timedelta(seconds=1))
            relay_until_idle()
            dead = list(Delivery.objects.filter(state="dead").values_list("pk", flat=True))
            if not dead and not Detour.objects.exists():
                break
            deliveries_retry(ids=dead, actor="user:ann")
        self.it_arrives_in_order()
        sequences = self.collector.sequences()
        for name, count in self.published.items():
            expected = {number for number in range(1, count + 1) if (name, number) not in self.given_up}
            numbers = sequences.get(name, [])
            assert expected <= set(numbers), (name, numbers, self.given_up)
            if numbers:
                assert numbers[-1] == max(set(numbers)), (name, numbers)
        assert not Delivery.objects.exclude(state="resolved").exists()
        assert not Detour.objects.exists()
        assert Subscription.objects.get().breaker_failures == 0
        assert [one.check for one in outbox_verify(apply=False, actor="user:ann") if one.count] == []


@pytest.mark.feature("H1", "H2", "D6", "D10")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("policy", ["block", "skip"])
def test_it_does_what_the_model_says(policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collector, "dead_policy", policy)
    monkeypatch.setattr(LogMachine, "monkeypatch", monkeypatch, raising=False)
    monkeypatch.setattr(LogMachine, "policy", policy)
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=8,
            stateful_step_count=25,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
