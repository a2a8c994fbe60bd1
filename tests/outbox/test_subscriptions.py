from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.db import IntegrityError, transaction
from django.db.models import Count
from django.utils import timezone

from operations.models import AuditEntry
from outbox import relaying
from outbox.errors import ErrorClass, InvalidLimit, UnknownSubscriber
from outbox.events import Event
from outbox.gates import probe_claim, tokens_give_back, tokens_take
from outbox.models import Lane, RelayProcess, Subscription
from outbox.relay import SubscriberRelay, relay_once, relay_until_idle
from outbox.relaying import Relay
from outbox.status import EventStatus, wait_for
from outbox.subscribers import Failure
from outbox.subscriptions import breaker_try, subscription_limit, subscription_pause, subscription_resume
from tests.outbox.collecting import Collector
from tests.outbox.conftest import publish_all
from tests.outbox.test_races import Threads

pytestmark = [pytest.mark.feature("D11", "D15"), pytest.mark.django_db(transaction=True)]


@pytest.fixture
def relays(collector: Collector, settings: LazySettings) -> Iterator[list[Relay]]:
    """Two relays that run, as two processes would: they share nothing but the database."""
    settings.OUTBOX_POLLING_INTERVAL = 0.05
    found = [Relay(["collector"]), Relay(["collector"])]
    for relay in found:
        relay.start()
    yield found
    for relay in found:
        assert relay.stop()


def limit(rate: float | None = None, concurrency: int | None = None, keep: bool = False) -> None:
    subscription_limit(
        name="collector", rate_limit=rate, concurrency=concurrency, keep_successes=keep, actor="user:ann"
    )


def arrived(collector: Collector) -> int:
    """How many events came, each counted once: a worker that lost its connection brings its last ones again."""
    return len({event.id for event in list(collector.got)})


def until(true: Callable[[], bool], seconds: float = 60.0) -> float:
    """Wait until something is true; how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


def until_held_by(workers: int, seconds: float = 60.0) -> None:
    """Wait until so many workers hold lanes."""
    every = Subscription.objects.all()
    lanes = Lane.objects.filter(subscription_id="collector").exclude(owner="")
    deadline = time.monotonic() + seconds
    while len(held := dict(lanes.values_list("owner").annotate(Count("id")))) != workers:
        assert time.monotonic() < deadline, (held, list(RelayProcess.objects.values()), list(every.values()))
        time.sleep(0.01)


def test_a_pause_and_its_end_are_heard_in_every_relay_at_its_next_look(
    collector: Collector, relays: list[Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: Counter[int] = Counter()
    work = relaying._SubscriberLoop.work

    def counted(loop: relaying._SubscriberLoop) -> int:
        done = work(loop)
        looks[id(loop)] += 1
        return done

    def until_both_looked(times: int) -> None:
        before = looks.copy()
        until(lambda: sum(now - before[loop] >= times for loop, now in list(looks.items())) == len(relays))

    monkeypatch.setattr(relaying._SubscriberLoop, "work", counted)
    (first,) = publish_all("a")
    assert wait_for(first, "collector", 60) is EventStatus.PROCESSED
    subscription_pause(name="collector", reason="maintenance", actor="user:ann")
    # The look that was under way, and one that saw it.
    until_both_looked(2)
    before = len(collector.calls)
    names = [f"c{n}" for n in range(64)]
    publish_all(*names)
    until_both_looked(5)
    meanwhile = len(collector.calls)

    subscription_resume(name="collector", actor="user:ann")
    until(lambda: arrived(collector) == 65)

    assert before == meanwhile
    actions = AuditEntry.objects.order_by("id").values_list("action", "actor", "target")
    assert list(actions) == [
        ("subscriber.paused", "user:ann", "subscriber:collector"),
        ("subscriber.resumed", "user:ann", "subscriber:collector"),
    ]


def test_a_pause_ends_by_itself(collector: Collector) -> None:
    publish_all("a")
    subscription_pause(name="collector", reason="x", until=timezone.now() + timedelta(hours=1))
    during = relay_once()
    Subscription.objects.update(paused_until=timezone.now() - timedelta(seconds=1))

    assert during == 0
    assert relay_once() == 1


def test_nobody_pauses_or_limits_what_is_not_there(collector: Collector) -> None:
    for act in (
        lambda: subscription_pause(name="nobody", reason="x"),
        lambda: subscription_resume(name="nobody"),
        lambda: breaker_try(name="nobody", actor="user:ann"),
        lambda: subscription_limit(name="nobody", rate_limit=1, concurrency=1, keep_successes=False, actor="user:ann"),
    ):
        with pytest.raises(UnknownSubscriber):
            act()

    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(("rate", "concurrency"), [(0, None), (-1, None), (2e6, None), (None, 0), (None, 65)])
def test_a_limit_is_above_zero_and_bounded(collector: Collector, rate: float | None, concurrency: int | None) -> None:
    with pytest.raises(InvalidLimit):
        limit(rate, concurrency)


def test_the_database_holds_limits_above_zero(collector: Collector) -> None:
    for values in ({"rate_limit": 0}, {"concurrency": -1}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Subscription.objects.update(**values)


def test_the_probe_after_an_outage_is_claimed_by_one(collector: Collector) -> None:
    collector.refuse = lambda event: Failure(event, ErrorClass.OUTAGE, "away", "nobody answers")
    publish_all("a")
    relay_once()
    Subscription.objects.update(breaker_until=timezone.now() - timedelta(seconds=1))
    claimed: list[bool] = []
    barrier = threading.Barrier(4)
    threads = Threads()

    def claim() -> None:
        barrier.wait(timeout=60)
        claimed.append(probe_claim("collector", seconds=30))

    for _ in range(4):
        threads.run(claim)
    threads.join()

    assert sorted(claimed) == [False, False, False, True]


def test_a_person_brings_the_probe_forward(collector: Collector) -> None:
    collector.refuse = lambda event: Failure(event, ErrorClass.OUTAGE, "away", "nobody answers")
    publish_all("a")
    relay_once()
    Subscription.objects.update(breaker_until=timezone.now() + timedelta(hours=1))
    collector.refuse = lambda event: None
    waiting = relay_once()
    breaker_try(name="collector", actor="user:ann")

    relay_until_idle()

    assert waiting == 0
    assert collector.sequences() == {"a": [1]}
    assert Subscription.objects.get().breaker_failures == 0


def test_all_relays_together_keep_the_rate(collector: Collector, relays: list[Relay]) -> None:
    limit(rate=40)
    publish_all(*[f"c{n}" for n in range(120)])
    began = time.monotonic()

    until(lambda: arrived(collector) >= 80)
    seconds = time.monotonic() - began
    limit()
    until(lambda: arrived(collector) == 120)

    # One second's worth at once, the rest as it comes.
    assert seconds >= (80 - 40) / 40 - 0.5


def test_the_oldest_goes_first_under_a_rate(collector: Collector) -> None:
    limit(rate=5)
    publish_all(*[f"c{n}" for n in range(40)])

    began = time.monotonic()
    done = relay_once()
    seconds = time.monotonic() - began

    assert 5 <= done <= 5 + 5 * seconds
    assert [event.aggregate_id for event in collector.got] == [f"c{n}" for n in range(done)]


def test_retries_keep_the_rate_as_well(collector: Collector) -> None:
    collector.ladder = (0.0,)
    collector.refuse = lambda event: Failure(event, ErrorClass.RETRYABLE, "no", "no")
    publish_all(*[f"c{n}" for n in range(30)])
    SubscriberRelay(collector).step()
    Lane.objects.update(owner="", lease_until="2000-01-01T00:00Z")
    collector.refuse = lambda event: None
    limit(rate=4)

    began = time.monotonic()
    relay_once()
    seconds = time.monotonic() - began

    # A second's worth, and what the clock added while it ran.
    assert 4 <= len(collector.got) <= 4 + 4 * seconds


def test_two_never_take_the_same_token(collector: Collector) -> None:
    Subscription.objects.update(tokens=50, refilled_at=timezone.now() + timedelta(days=1))
    taken: list[int] = []
    threads = Threads()

    def take() -> None:
        taken.extend(tokens_take("collector", rate=100, want=3) for _ in range(10))

    for _ in range(4):
        threads.run(take)
    threads.join()
    first = sum(taken)
    tokens_give_back("collector", 2)

    # The clock may add some while they take: what they took is what there was, to within that.
    assert 50 <= first <= 50 + 100
    assert all(0 <= one <= 3 for one in taken)


def test_no_more_workers_than_the_limit_are_in_a_call_at_once(collector: Collector, relays: list[Relay]) -> None:
    (first,) = publish_all("a")
    wait_for(first, "collector", 60)
    until_held_by(2)
    limit(concurrency=1)
    until_held_by(1)
    inside, most = [0], [0]
    guard = threading.Lock()

    def count(events: Sequence[Event]) -> None:
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        with guard:
            inside[0] -= 1

    collector.before = count
    for _ in range(4):
        publish_all(*[f"c{n}" for n in range(64)])
    until(lambda: arrived(collector) == 257)
    alone = most[0]
    limit(concurrency=2)

    until_held_by(2)

    assert alone == 1
