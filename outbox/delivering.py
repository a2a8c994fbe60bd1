"""Delivering a batch inside a transaction, in savepoints, cut in halves until the event that fails stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from django.db import connection, transaction

from outbox.errors import DeliveryError
from outbox.events import Event
from outbox.failures import HALTING, failure_of, is_database_trouble
from outbox.subscribers import Deadline, Failure, Subscriber


class Halted(Exception):
    """The batch cannot go on, and no event of it is to blame: the transaction is rolled back."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__(failures)
        self.failures = failures

    def for_all(self, events: Sequence[Event]) -> list[Failure]:
        """The reason, for each of the events: nothing went through."""
        reason = next(failure for failure in self.failures if failure.error_class in HALTING)
        return [replace(reason, event=event) for event in events]


def deliver_in_transaction(subscriber: Subscriber, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
    """Give events to a transactional subscriber, in savepoints of the current transaction.

    After an event failed, later ones of its aggregate are left out; they wait behind it.

    Returns:
        What failed; the effects of all else are kept.

    Raises:
        Halted: outage or configuration.
        django.db.Error: the database is in trouble; the whole batch is to be tried again.
    """
    try:
        with transaction.atomic():
            failures = subscriber.deliver(events, deadline)
            # A deferred constraint would speak up at COMMIT, when nobody can tell whose fault it is.
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except Exception as exc:
        if is_database_trouble(exc):
            raise
        if isinstance(exc, DeliveryError) and exc.error_class in HALTING:
            raise Halted([failure_of(event, exc) for event in events]) from exc
        if len(events) == 1:
            return [failure_of(events[0], exc)]
    else:
        if any(failure.error_class in HALTING for failure in failures):
            raise Halted(failures)
        return failures
    middle = len(events) // 2
    failures = deliver_in_transaction(subscriber, events[:middle], deadline)
    behind = {failure.event.aggregate for failure in failures}
    rest = [event for event in events[middle:] if event.aggregate not in behind]
    return failures + (deliver_in_transaction(subscriber, rest, deadline) if rest else [])
