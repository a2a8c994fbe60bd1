"""Retries: serves the detours that are due, by the owner of their lanes and before new events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from outbox.cursors import Cursors
from outbox.delivering import Halted, deliver_in_transaction
from outbox.detours import MOST_AT_ONCE, Serving, crashed, detours_are_due, detours_settle, detours_start
from outbox.events import Event
from outbox.failures import HALTING, first_of_each_aggregate, those_through
from outbox.settling import lanes_hold, settling
from outbox.subscribers import Failure
from outbox.worker import Worker

LOOK_SECONDS: Final = 0.5


class Retries:
    """Serves detours for a worker."""

    def __init__(self, worker: Worker, cursors: Cursors) -> None:
        self._worker = worker
        self._cursors = cursors
        self._next_look = 0.0

    def forget(self) -> None:
        """Look at the next occasion, after an error."""
        self._next_look = 0.0

    def serve_due(self) -> int:
        """Serve what is due; how many events are done with."""
        worker = self._worker
        now = time.monotonic()
        # What we know of may be due any moment; what people made meanwhile is looked for now and then.
        if not any(held.blocked for held in worker.leases.held.values()) and now < self._next_look:
            return 0
        self._next_look = now + LOOK_SECONDS
        if not detours_are_due(worker.name, worker.leases.held):
            return 0
        # An aggregate is back on the log when it has caught up with its lane: with the cursor as the database has it.
        self._cursors.settle_all()
        if not worker.lease_lasts():
            return 0
        allowed = worker.allowance(MOST_AT_ONCE)
        if not allowed:
            return 0
        served = detours_start(
            worker.name,
            worker.leases,
            seconds=worker.lease_seconds,
            batch=worker.batch if worker.rate_limit is None else 1,
            most=allowed,
            topics=worker.subscriber.topics,
        )
        worker.give_back(allowed - sum(len(one.events) for one in served))
        return self._serve(served) if served else 0

    def _serve(self, served: Sequence[Serving]) -> int:
        worker = self._worker
        if not worker.lease_lasts():
            return 0
        served = [one for one in served if worker.leases.held.get(one.held.lane) is one.held]
        if not served:
            return 0
        most = len(worker.handling.ladder) + 1
        known = [failure for failure in (crashed(one, most) for one in served) if failure is not None]
        hopeless = {failure.event.aggregate for failure in known}
        calls = [one for one in served if one.aggregate not in hopeless]
        events = sorted(event for one in calls for event in one.events)
        untried: dict[tuple[str, str], int] = {}
        if worker.subscriber.transactional:
            failures, finished = self._inside(served, events, known)
        else:
            found, untried = self._outside(calls, events)
            failures = known + found
            with settling(worker.lease_seconds):
                finished = detours_settle(worker, served, failures, untried)
        for one in served:
            if one.id in finished:
                one.held.blocked.discard(one.aggregate)
        tried = [event for event in events if event.sequence < untried.get(event.aggregate, event.sequence + 1)]
        return worker.conclude(tried, failures)

    def _inside(
        self, served: Sequence[Serving], events: Sequence[Event], known: Sequence[Failure]
    ) -> tuple[list[Failure], dict[int, tuple[str, str]]]:
        worker = self._worker
        failures = list(known)
        try:
            with settling(worker.lease_seconds):
                kept = lanes_hold(worker.name, {one.held.lane: one.held for one in served}.values())
                mine = [event for event in events if event.lane in kept]
                if mine:
                    with worker.calling(mine):
                        failures += deliver_in_transaction(worker.subscriber, mine, worker.deadline())
                finished = detours_settle(worker, served, failures, {})
        except Halted as exc:
            failures = [*known, *exc.for_all(events)]
            with settling(worker.lease_seconds):
                return failures, detours_settle(worker, served, failures, {})
        if through := those_through(mine, first_of_each_aggregate(failures)):
            worker.subscriber.after_commit(through)
        return failures, finished

    def _outside(
        self, served: Sequence[Serving], events: Sequence[Event]
    ) -> tuple[list[Failure], dict[tuple[str, str], int]]:
        """Deliver; what failed, and by aggregate the sequence number from which on nothing was tried."""
        worker = self._worker
        failures = worker.deliver_outside(events)
        if failures is not None:
            return failures, {}
        # It raised and named no event: one at a time, of each aggregate until one fails. The first is tried whatever
        # the gate says: it was open for this batch, and nothing else tells whether the other side is there.
        found: list[Failure] = []
        untried: dict[tuple[str, str], int] = {}
        began, halted, first = time.monotonic(), False, True
        for one in served:
            for event in one.events:
                if halted or not (first or worker.may_follow(began)):
                    untried[one.aggregate] = event.sequence
                    break
                failed = worker.deliver_outside([event]) or []
                first = False
                found += failed
                halted = any(failure.error_class in HALTING for failure in failed)
                if failed:
                    break
        return found, untried
