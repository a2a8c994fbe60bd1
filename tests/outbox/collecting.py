"""Subscribers that write down what they are given, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import ClassVar

from django.db import connection

from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.subscribers import Deadline, Failure, Subscriber


class Collector(Subscriber):
    """Keeps what went through in memory; ``refuse`` decides what does not."""

    name = "collector"
    ladder = (0.0, 0.0)

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.calls: list[int] = []
        self.refuse: Callable[[Event], Failure | None] = lambda event: None
        self.before: Callable[[Sequence[Event]], None] = lambda events: None
        self._guard = threading.Lock()

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        self.before(events)
        failures: list[Failure] = []
        behind: set[tuple[str, str]] = set()
        with self._guard:
            self.calls.append(len(events))
            for event in events:
                if event.aggregate in behind:
                    continue
                failure = self.refuse(event)
                if failure is None:
                    self.got.append(event)
                else:
                    behind.add(event.aggregate)
                    failures.append(failure)
        return failures

    def sequences(self) -> dict[str, list[int]]:
        """By aggregate, the sequence numbers in the order in which they came."""
        found: dict[str, list[int]] = {}
        for event in self.got:
            found.setdefault(event.aggregate_id, []).append(event.sequence)
        return found


class Ledger(Subscriber):
    """Transactional: writes what it is given into a table, once by constraint."""

    name = "ledger"
    transactional = True
    ladder = (0.0, 0.0)
    poison: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        self.committed: list[Event] = []
        self.before: Callable[[Sequence[Event]], None] = lambda events: None

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        self.before(events)
        with connection.cursor() as cursor:
            for event in events:
                cursor.execute(
                    "INSERT INTO ledger (event_id, aggregate_id, sequence, amount) VALUES (%s, %s, %s, %s)",
                    [event.id, event.aggregate_id, event.sequence, -1 if event.aggregate_id in self.poison else 1],
                )
        return []

    def after_commit(self, events: Sequence[Event]) -> None:
        self.committed += events


def refusing(*aggregates: str, error_class: ErrorClass = ErrorClass.RETRYABLE) -> Callable[[Event], Failure | None]:
    """Refuse all events of these aggregates."""

    def refuse(event: Event) -> Failure | None:
        if event.aggregate_id in aggregates:
            return Failure(event, error_class, "refused", f"no {event.aggregate_id} today")
        return None

    return refuse
