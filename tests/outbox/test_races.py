"""Races: real connections in threads, ordered by events, never by sleeping."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from django.db import connection, transaction

from outbox.events import Event
from outbox.models import Delivery, Detour, Lane, LogEntry, StoredEvent, Unsequenced
from outbox.publishing import publish_many
from outbox.relay import SubscriberRelay, relay_until_idle
from outbox.sequencing import LOCK_KEY, Sequencer
from outbox.subscribers import Subscriber
from tests.outbox.collecting import Collector, Ledger
from tests.outbox.conftest import new, publish_all

pytestmark = [pytest.mark.feature("H1", "D15"), pytest.mark.django_db(transaction=True)]


class Threads:
    """Threads with connections of their own; their errors are raised at the end."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def run(self, function: Callable[[], object]) -> threading.Thread:
        def guarded() -> None:
            try:
                function()
            except BaseException as exc:  # noqa: BLE001 - raised in join
                self._errors.append(exc)
            finally:
                connection.close()

        thread = threading.Thread(target=guarded)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive()
        assert self._errors == []


def expire_leases() -> None:
    Lane.objects.update(lease_until="2000-01-01T00:00Z")
    Detour.objects.filter(due__isnull=False).update(due="2000-01-01T00:00Z")


@pytest.mark.feature("A9")
def test_it_loses_and_reorders_nothing_under_writers_that_roll_back_and_several_relays(collector: Collector) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    writing = threading.Event()
    threads, relays = Threads(), Threads()

    def write(number: int) -> None:
        dice = random.Random(seed + number)
        for _ in range(60):
            names = [f"c{dice.randrange(12)}" for _ in range(dice.randrange(1, 4))]
            try:
                with transaction.atomic():
                    publish_many([new(name) for name in sorted(names)])
                    if dice.random() < 0.2:
                        # Hold the ids back while others commit past them.
                        with connection.cursor() as cursor:
                            cursor.execute("SELECT pg_sleep(%s)", [dice.random() / 50])
                    if dice.random() < 0.2:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass

    def relay() -> None:
        mine = SubscriberRelay(collector, resident=True)
        while mine.step() or writing.is_set() or mine.unsettled:
            pass
        mine.leave()

    writing.set()
    for number in range(6):
        threads.run(lambda number=number: write(number))  # type: ignore[misc]
    for _ in range(3):
        relays.run(relay)
    threads.join()
    writing.clear()
    relays.join()
    relay_until_idle()

    assert not Unsequenced.objects.exists()
    assert LogEntry.objects.count() == StoredEvent.objects.count()
    assert sorted(event.id for event in collector.got) == sorted(StoredEvent.objects.values_list("id", flat=True))
    assert all(b == a + 1 for numbers in collector.sequences().values() for a, b in pairwise(numbers))


def test_it_finds_an_event_whose_id_became_visible_after_higher_ones(collector: Collector) -> None:
    drawn, go_on = threading.Event(), threading.Event()
    slow = Threads()

    def hold() -> None:
        with transaction.atomic():
            publish_many([new("slow")])
            drawn.set()
            go_on.wait(timeout=60)

    slow.run(hold)
    assert drawn.wait(timeout=60)
    sequencer = Sequencer()
    for _ in range(5):
        publish_all("fast")
        sequencer.sequence_once()
    sequenced = LogEntry.objects.count()
    go_on.set()
    slow.join()
    last = sequencer.sequence_once()

    assert sequenced == 5
    assert last is not None
    assert last.events == 1
    assert LogEntry.objects.count() == 6


def test_its_floor_spares_what_is_done_and_stops_at_what_is_open() -> None:
    drawn, go_on = threading.Event(), threading.Event()
    slow = Threads()
    sequencer = Sequencer()
    (first,) = publish_all("a")

    def sequence_until_the_floor_is_above(id_: int) -> None:
        # Transactions of other databases of this server hold it back as well, for as long as they last.
        for _ in range(600):
            publish_all("fast")
            sequencer.sequence_once()
            sequencer.sequence_once()
            if sequencer._floor > id_:
                return
            time.sleep(0.05)

    sequence_until_the_floor_is_above(first)
    free = sequencer._floor

    def hold() -> None:
        with transaction.atomic():
            publish_many([new("slow")])
            drawn.set()
            go_on.wait(timeout=60)

    slow.run(hold)
    assert drawn.wait(timeout=60)
    (held,) = (StoredEvent.objects.order_by("-id").values_list("id", flat=True)[:1][0] + 1,)
    for _ in range(5):
        publish_all("fast")
        sequencer.sequence_once()
    frozen = sequencer._floor
    go_on.set()
    slow.join()
    sequence_until_the_floor_is_above(held)

    assert free > first
    assert frozen < held
    assert sequencer._floor > held
    assert LogEntry.objects.count() == StoredEvent.objects.count()


def test_it_sequences_one_at_a_time(collector: Collector) -> None:
    locked, go_on = threading.Event(), threading.Event()
    other = Threads()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
            locked.set()
            go_on.wait(timeout=60)

    publish_all("a")
    other.run(hold)
    assert locked.wait(timeout=60)
    meanwhile = Sequencer().sequence_once()
    go_on.set()
    other.join()

    assert meanwhile is None
    assert Unsequenced.objects.count() == 1


@pytest.mark.parametrize("aggregates", [1, 40])
def test_it_records_nothing_of_a_worker_that_lost_its_lanes(collector: Collector, aggregates: int) -> None:
    delivering, go_on = threading.Event(), threading.Event()
    names = [f"c{n}" for n in range(aggregates)]
    publish_all(*names)
    stale = Threads()

    def suspend(events: Sequence[Event]) -> None:
        collector.before = lambda events: None
        delivering.set()
        go_on.wait(timeout=60)

    collector.before = suspend
    stale.run(lambda: SubscriberRelay(collector).step())
    assert delivering.wait(timeout=60)
    expire_leases()
    relay_until_idle()
    publish_all(*names)
    relay_until_idle()
    before = list(Lane.objects.order_by("lane").values_list("lane", "cursor", "epoch", "processed"))
    go_on.set()
    stale.join()

    assert list(Lane.objects.order_by("lane").values_list("lane", "cursor", "epoch", "processed")) == before
    assert sum(row[3] for row in before) == 2 * aggregates


def test_it_applies_a_batch_once_when_two_workers_hold_it(ledger: Ledger) -> None:
    delivering, go_on = threading.Event(), threading.Event()
    ids = publish_all("a", "b", "c")
    stale = Threads()

    def hold() -> None:
        mine = SubscriberRelay(ledger)
        mine._upkeep()
        mine._leases.keep()
        delivering.set()
        go_on.wait(timeout=60)
        mine.step()

    stale.run(hold)
    assert delivering.wait(timeout=60)
    expire_leases()
    relay_until_idle()
    go_on.set()
    stale.join()

    with connection.cursor() as cursor:
        cursor.execute("SELECT event_id FROM ledger ORDER BY nth")
        assert sorted(row[0] for row in cursor.fetchall()) == ids


class Died(BaseException):
    """Stands for the death of the process: nothing after it is done."""


@pytest.mark.feature("H2")
@pytest.mark.parametrize("kind", [Collector, Ledger])
def test_it_isolates_an_event_that_kills_its_worker(kind: type[Subscriber], request: pytest.FixtureRequest) -> None:
    subscriber = request.getfixturevalue(kind.name)
    subscriber.ladder = (0.0,)
    deaths: list[int] = []

    def kill(events: Sequence[Event]) -> None:
        if any(event.aggregate_id == "killer" for event in events):
            deaths.append(len(events))
            raise Died

    subscriber.before = kill
    publish_all(*[f"c{n % 50}" for n in range(400)], "killer", "killer", *[f"c{n}" for n in range(50)])

    for _ in range(40):
        relay = SubscriberRelay(subscriber)
        try:
            while relay.step() or relay.resting:
                pass
            relay.leave()
        except Died:
            expire_leases()
            connection.close()

    got = subscriber.got if isinstance(subscriber, Collector) else subscriber.committed
    delivery = Delivery.objects.get()
    assert (delivery.aggregate_id, delivery.sequence, delivery.state) == ("killer", 1, "dead")
    assert delivery.code == "worker_died"
    assert len({event.id for event in got}) == 450
    assert deaths[-1] <= 2
    assert len(deaths) < 15


@pytest.mark.feature("D15")
def test_relays_share_the_lanes(collector: Collector) -> None:
    publish_all("a")
    one, two = SubscriberRelay(collector, resident=True), SubscriberRelay(collector, resident=True)

    def held() -> list[int]:
        for relay in (one, two, one, two):
            relay._leases._next_look = 0.0
            relay.step()
        return [len(relay._leases.held) for relay in (one, two)]

    shared = held()
    two.leave()
    one._leases._next_look = 0.0
    one.step()
    alone = len(one._leases.held)
    one.leave()

    assert shared == [32, 32]
    assert alone == 64


@pytest.mark.feature("D15")
def test_no_lane_waits_for_a_lease_after_a_relay_forgot_what_it_held(collector: Collector) -> None:
    one, two = SubscriberRelay(collector, resident=True), SubscriberRelay(collector, resident=True)
    one.step()
    alone = len(one._leases.held)
    two.step()
    # Its share is half by now, and an error makes it forget all.
    one._forget()

    for relay in (one, two):
        relay._leases._next_look = 0.0
        relay.step()

    shared = [len(relay._leases.held) for relay in (one, two)]
    one.leave()
    two.leave()
    assert (alone, shared) == (64, [32, 32])
    assert set(Lane.objects.values_list("strikes", flat=True)) == {0}
