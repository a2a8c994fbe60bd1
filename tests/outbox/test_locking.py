"""Locks of lanes: relays and people who decide never wait for each other in a circle."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from outbox.deciding import deliveries_retry
from outbox.lanes import LANES
from outbox.leases import LaneLeases
from outbox.models import Delivery, Detour, Lane
from outbox.relay import SubscriberRelay
from outbox.settling import Move, lanes_move, settling
from tests.customers.races import wait_until_somebody_waits_for_me
from tests.outbox.collecting import Collector, refusing
from tests.outbox.conftest import publish_all
from tests.outbox.test_races import Threads

pytestmark = [pytest.mark.feature("D10", "D15"), pytest.mark.django_db(transaction=True)]

MIDDLE = LANES // 2


def move(name: str, leases: LaneLeases) -> None:
    with settling(30):
        lanes_move(name, [Move(held, held.cursor + 1, 0, 0) for held in leases.held.values()])


def renew(name: str, leases: LaneLeases) -> None:
    leases.renew()


def release(name: str, leases: LaneLeases) -> None:
    leases.release(list(leases.held.values()))


def leave(name: str, leases: LaneLeases) -> None:
    leases.leave()


@pytest.mark.parametrize("write", [move, renew, release, leave])
def test_it_locks_lanes_in_the_order_of_their_numbers(
    collector: Collector, write: Callable[[str, LaneLeases], None]
) -> None:
    claimed, go_on = threading.Event(), threading.Event()
    threads = Threads()

    def work() -> None:
        leases = LaneLeases(collector.name, "me", 30.0, resident=False)
        leases.keep()
        # Neither the table nor what is asked for has them in order.
        for lane in reversed(range(LANES)):
            Lane.objects.filter(lane=lane).update(strikes=0)
        leases.held = dict(sorted(leases.held.items(), reverse=True))
        claimed.set()
        go_on.wait(timeout=60)
        write(collector.name, leases)

    threads.run(work)
    assert claimed.wait(timeout=60)
    with transaction.atomic():
        Lane.objects.select_for_update().get(lane=MIDDLE)
        go_on.set()
        wait_until_somebody_waits_for_me()
        free = [one.lane for one in Lane.objects.select_for_update(skip_locked=True).order_by("lane")]
    threads.join()

    assert free == list(range(MIDDLE, LANES))


def test_it_passes_over_what_a_person_decides_about_and_comes_back(collector: Collector) -> None:
    collector.refuse = refusing("a", "b")
    publish_all("a", "b", "c")
    relay = SubscriberRelay(collector)
    while relay.step() or relay.unsettled:
        pass
    collector.refuse = lambda event: None
    deliveries_retry(ids=list(Delivery.objects.values_list("pk", flat=True)), actor="user:ann")
    lane = Detour.objects.get(aggregate_id="a").lane
    locked, decided = threading.Event(), threading.Event()
    threads = Threads()

    def decide() -> None:
        with transaction.atomic():
            list(Lane.objects.select_for_update().filter(lane=lane))
            Detour.objects.filter(lane=lane).update(next_sequence=1)
            locked.set()
            decided.wait(timeout=60)

    threads.run(decide)
    assert locked.wait(timeout=60)
    with connection.cursor() as cursor:
        try:
            cursor.execute("SET lock_timeout = '5s'")
            relay.step()
        finally:
            cursor.execute("RESET lock_timeout")
            decided.set()
    meanwhile = [event.aggregate_id for event in collector.got]
    threads.join()
    while relay.step() or relay.unsettled:
        pass

    assert meanwhile == ["c", "b"]
    assert [event.aggregate_id for event in collector.got] == ["c", "b", "a"]
    assert not Detour.objects.exists()
