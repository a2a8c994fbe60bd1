"""What must not slow the log down: an old snapshot, poison, a hundred thousand open detours."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from django.db import connection

from benchmarks.outbox import load
from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.models import Detour, Lane
from outbox.policies import DeadPolicy
from outbox.relay import SubscriberRelay, relay_once
from outbox.subscribers import Deadline, Failure, Subscriber
from outbox.subscriptions import subscription_ensure


class Picky(Subscriber):
    """Takes everything but some aggregates, or some events, which it refuses for good."""

    name = "picky"
    aggregates: frozenset[str] = frozenset()
    every = 0

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        if not self.aggregates and not self.every:
            return []
        first: dict[tuple[str, str], Failure] = {}
        for event in events:
            if event.aggregate_id in self.aggregates or (self.every and event.id % self.every == 0):
                first.setdefault(event.aggregate, Failure(event, ErrorClass.PERMANENT, "refused", "no"))
        return list(first.values())


class Passing(Picky):
    dead_policy = DeadPolicy.SKIP


def plain(events: int) -> float:
    """Events per second of 1,000 aggregates, nothing being wrong."""
    load.forget_all()
    subscription_ensure(Picky())
    return _drained(Picky(), events, events)


def snapshot(events: int) -> float:
    """The same while a transaction is open that began before as many others came and went, whose dead rows stay."""
    load.forget_all()
    subscription_ensure(Picky())
    with _old_snapshot():
        load.fill(load.keys("uniform", events))
        relay_once(Picky(), seconds=600)
        return _drained(Picky(), events, events)


def poison_blocked(events: int) -> float:
    """Of 1,000 aggregates ten hold an event that nobody takes, and wait behind it."""
    load.forget_all()
    subscriber = Picky()
    subscriber.aggregates = frozenset(f"c{n}" for n in range(10))
    subscription_ensure(subscriber)
    through = sum(key not in subscriber.aggregates for key in load.keys("uniform", events))
    return _drained(subscriber, events, through)


def poison_passed(events: int) -> float:
    """One event in a hundred is taken by nobody, and its aggregate goes on."""
    load.forget_all()
    subscriber = Passing()
    subscriber.every = 100
    subscription_ensure(subscriber)
    return _drained(subscriber, events, events)


def detours(events: int, count: int) -> float:
    """While ``count`` other aggregates wait behind dead events."""
    load.forget_all()
    subscriber = Picky()
    subscription_ensure(subscriber)
    subscriber.aggregates = frozenset(f"d{n}" for n in range(count))
    load.fill(sorted(subscriber.aggregates))
    relay_once(subscriber, seconds=600)
    assert Detour.objects.count() == count
    load.settle()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE outbox_detour, outbox_delivery")
    return _drained(subscriber, events, events)


def _drained(subscriber: Subscriber, events: int, through: int) -> float:
    """By a relay that runs already, as relays do: what it reads once, when it takes lanes, is no share of an event."""
    relay = SubscriberRelay(subscriber, resident=True)
    _run(relay)
    load.fill(load.keys("uniform", events))
    before = _processed(subscriber)
    started = time.perf_counter()
    _run(relay)
    seconds = time.perf_counter() - started
    done = _processed(subscriber) - before
    relay.leave()
    assert done >= through * 0.9, (done, through)
    return done / seconds


def _run(relay: SubscriberRelay) -> None:
    """Step until nothing is left and all is settled."""
    while relay.step() or relay.resting or relay.unsettled:
        pass


def _processed(subscriber: Subscriber) -> int:
    return sum(Lane.objects.filter(subscription_id=subscriber.name).values_list("processed", flat=True))


@contextmanager
def _old_snapshot() -> Iterator[None]:
    with psycopg.connect(os.environ["DATABASE_URL"]) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT count(*) FROM outbox_event")
        yield
        session.rollback()
