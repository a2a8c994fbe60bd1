"""Passing dead events: their aggregates go on within the same batch, where the policy lets them.

A dead event that its aggregate passes needs no detour if the later events of the batch are given at once. A detour
would read them from the log again, one aggregate at a time, only to end with the next pass.

Order is kept: the later events are given after the call that refused the one before them, and the cursor is settled
after the last of these calls. Who dies in between has settled nothing, so all of it comes again, the dead one first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

from outbox.events import Event
from outbox.failures import HALTING, Failed, Succeeded, first_of_each_aggregate, goes_on_without
from outbox.subscribers import Failure
from outbox.worker import Worker


@dataclass(slots=True)
class Outcome:
    """What became of a batch.

    Attributes:
        failed: failures to be recorded; of each aggregate any number that were passed, and at most one that was not.
        halting: what an outage or a wrong setting kept from going through.
        kept: attempts that went through, by event, if they are kept.
        failures: how many events failed.
    """

    failed: list[Failed] = field(default_factory=list)
    halting: list[Failure] = field(default_factory=list)
    kept: dict[int, Succeeded] = field(default_factory=dict)

    @classmethod
    def without_call(cls, worker: Worker, failure: Failure) -> Outcome:
        """The outcome of a batch of one event that was not tried again."""
        return cls(failed=[worker.failed(failure)])

    @property
    def failures(self) -> int:
        return len(self.failed) + len(self.halting)

    def through(self, events: Sequence[Event]) -> list[Event]:
        """Those of the events that went through: neither failed nor behind one of their aggregate that holds it."""
        if not self.failed:
            return list(events)
        dead = {one.failure.event.id for one in self.failed if one.passed}
        behind = {one.failure.event.aggregate: one.failure.event.position for one in self.failed if not one.passed}
        return [
            event
            for event in events
            if event.id not in dead and event.position < behind.get(event.aggregate, event.position + 1)
        ]

    def successes(self, through: Sequence[Event]) -> list[Succeeded]:
        """Of the events that went through, the attempts that are kept."""
        return [self.kept[event.id] for event in through if event.id in self.kept]

    def take(self, worker: Worker, events: Sequence[Event], failures: Sequence[Failure]) -> list[Failed]:
        """Take note of one call.

        Returns:
            The failures that stop an aggregate which may go on.
        """
        if worker.keeps_successes:
            self.kept.update((one.event_id, one) for one in worker.successes(events))
        self.halting += [failure for failure in failures if failure.error_class in HALTING]
        firsts = [failure for failure in first_of_each_aggregate(failures) if failure.error_class not in HALTING]
        found = [worker.failed(failure) for failure in firsts]
        self.failed += found
        return [one for one in found if goes_on_without(one, worker.handling)]

    def passes(self, stopped: Sequence[Failed]) -> None:
        """Take note that the later events of these failures' aggregates were given."""
        passed = {one.failure.event.id for one in stopped}
        self.failed = [replace(one, passed=True) if one.failure.event.id in passed else one for one in self.failed]


@overload
def delivered(
    worker: Worker, events: Sequence[Event], deliver: Callable[[Sequence[Event]], list[Failure]]
) -> Outcome: ...
@overload
def delivered(
    worker: Worker, events: Sequence[Event], deliver: Callable[[Sequence[Event]], list[Failure] | None]
) -> Outcome | None: ...
def delivered(
    worker: Worker, events: Sequence[Event], deliver: Callable[[Sequence[Event]], list[Failure] | None]
) -> Outcome | None:
    """Deliver a batch, and at once what is behind its dead events.

    Args:
        worker: who delivers.
        events: the batch, in the order of the log.
        deliver: one call of the subscriber; None if it raised and no event is to blame.

    Returns:
        What became of it; None if the first call raised and no event is to blame.
    """
    began = time.monotonic()
    failures = deliver(events)
    if failures is None:
        return None
    outcome = Outcome()
    while stopped := outcome.take(worker, events, failures):
        stops = {one.failure.event.aggregate: one.failure.event.position for one in stopped}
        events = [event for event in events if event.position > stops.get(event.aggregate, event.position)]
        if not events:
            outcome.passes(stopped)
            break
        # An outage stops whole lanes; what is behind it comes again with them.
        if outcome.halting or not worker.may_follow(began):
            break
        failures = deliver(events)
        if failures is None:
            break
        outcome.passes(stopped)
    return outcome
