"""Batches: the next events of the lanes, delivered and settled."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog

from outbox.cursors import SETTLE_SECONDS, Cursors
from outbox.delivering import Halted, deliver_in_transaction
from outbox.errors import ErrorClass
from outbox.events import Event
from outbox.failures import failures_record, first_of_each_aggregate, successes_record, those_through
from outbox.gates import Gate
from outbox.leases import HeldLane
from outbox.naming import batch_named, each_named
from outbox.reading import LaneRead, lanes_read
from outbox.settling import Count, Move, lane_start, lanes_count, lanes_move, settling
from outbox.subscribers import Failure
from outbox.worker import Worker

log = structlog.get_logger(__name__)

CRASHES: Final = 3
CRASHED_CODE: Final = "worker_died"
CRASHED_MESSAGE: Final = "Workers died while they delivered this event."


class Batches:
    """New events, in chunks of one batch per lane.

    Attributes:
        resting: whether lanes were left out that moved just now, and may have more.
    """

    def __init__(self, worker: Worker, cursors: Cursors) -> None:
        self.resting = False
        self._worker = worker
        self._cursors = cursors
        self._read_up_to = (-1, -1)

    def forget(self) -> None:
        """Forget how far was read, after an error."""
        self._read_up_to = (-1, -1)
        self.resting = False

    def deliver_next(self, head: int, *, fresh: bool) -> int:
        """Deliver one chunk; how many events are done with.

        Args:
            head: a position up to which everything is visible.
            fresh: whether nothing after it can be visible yet.
        """
        held = self._worker.leases.held
        self.resting = False
        if fresh and self._read_up_to == (head, self._worker.leases.claims):
            self._cursors.pass_quiet(head)
            return 0
        now = time.monotonic()
        lanes = [lane for lane in held.values() if lane.rest_until <= now and not self._is_resting(lane, now)]
        self.resting = any(self._is_resting(lane, now) for lane in held.values())
        if not lanes:
            return 0
        limits = [max(1, self._worker.batch >> min(lane.strikes, 30)) for lane in lanes]
        reads = lanes_read(lanes, limits, self._worker.subscriber.topics)
        for read in reads:
            read.held.short = read.short
        filled = [read for read in reads if read.last > read.held.cursor]
        if not filled:
            if fresh and len(lanes) == len(held):
                self._read_up_to = (head, self._worker.leases.claims)
                self._cursors.pass_quiet(head)
            return 0
        allowed = self._rationed(filled[:1] if self._worker.gate is Gate.PROBE else filled)
        return self._deliver(allowed, head) if allowed else 0

    def _rationed(self, reads: list[LaneRead]) -> list[LaneRead]:
        """What of it the rate limit allows now: of each lane the first events, the oldest of all lanes first."""
        positions = sorted(event.position for read in reads for event in read.events)
        if not positions or (allowed := self._worker.allowance(len(positions))) == len(positions):
            return reads
        last = positions[allowed - 1] if allowed else -1
        return [read for read in reads if read.cut(last)]

    def _is_resting(self, lane: HeldLane, now: float) -> bool:
        # A transactional settle cannot be put off, so the lane itself waits: it moves at most ten times a second.
        return self._worker.subscriber.transactional and lane.short and now - lane.settled_at < SETTLE_SECONDS

    def _deliver(self, reads: Sequence[LaneRead], head: int) -> int:
        sound = [read for read in reads if not read.held.strikes]
        suspect = [read for read in reads if read.held.strikes]
        done = self._deliver_group(sound, head) if sound else 0
        # A lane that has cost a worker its life is delivered alone; the work of others is safe before that.
        for read in suspect:
            self._cursors.settle_all()
            done += self._deliver_group([read], head)
            self._cursors.settle([read.held])
        return done

    def _deliver_group(self, reads: Sequence[LaneRead], head: int) -> int:
        if not self._worker.lease_lasts():
            return 0
        held = self._worker.leases.held
        reads = [read for read in reads if held.get(read.held.lane) is read.held]
        if not reads:
            return 0
        events = sorted(event for read in reads for event in read.events if event.aggregate not in read.held.blocked)
        failures: list[Failure] | None
        started = 0
        if reads[0].held.strikes and len(events) == 1:
            started = lane_start(self._worker.name, reads[0].held)
            if started == 0:
                self._worker.leases.drop([reads[0].held.lane])
                return 0
        if started > CRASHES:
            failures = [Failure(events[0], ErrorClass.CRASH, CRASHED_CODE, CRASHED_MESSAGE)]
            self._cursors.book(reads, failures, head)
        elif self._worker.subscriber.transactional:
            failures = self._deliver_inside(reads, events, head)
        else:
            failures = self._worker.deliver_outside(events)
            if failures is None:
                # It raised and named no event: fewer and alone next time, until the event stands alone.
                for read in reads:
                    read.held.strikes += 1
                return 1
            self._cursors.book(reads, failures, head)
        if events:
            name, seconds = self._worker.name, self._worker.call_seconds
            log.info(
                "events_processed",
                subscriber=name,
                failed=len(failures),
                duration_ms=round(seconds * 1000, 1),
                **batch_named(events),
            )
            each_named("event_processed", name, events)
        return self._worker.conclude(events, failures)

    def _deliver_inside(self, reads: Sequence[LaneRead], events: Sequence[Event], head: int) -> list[Failure]:
        """Deliver in the transaction that moves the cursors, after the fence: effect and cursor commit together."""
        name, leases = self._worker.name, self._worker.leases
        counts = Counter(event.lane for event in events)
        moves = [Move(read.held, read.reach(head), counts[read.held.lane], 0) for read in reads]
        try:
            with settling(self._worker.lease_seconds):
                kept = lanes_move(name, moves)
                mine = [event for event in events if event.lane in kept]
                failures = self._inside(mine)
                through = those_through(mine, failures)
                if failures:
                    self._correct(mine, through, failures)
                    failures_record(self._worker.handling, [self._worker.failed(failure) for failure in failures])
                if self._worker.keeps_successes:
                    successes_record(self._worker.handling, self._worker.successes(through))
        except Halted as exc:
            return exc.for_all(events)
        leases.drop({read.held.lane for read in reads} - kept)
        for move in moves:
            if move.held.lane in kept:
                self._cursors.settled(move.held, move.cursor)
        for failure in failures:
            leases.held[failure.event.lane].blocked.add(failure.event.aggregate)
        self._worker.tally.add([event.topic for event in through], [failure.event.topic for failure in failures])
        if through:
            self._worker.subscriber.after_commit(through)
        return failures

    def _inside(self, events: Sequence[Event]) -> list[Failure]:
        if not events:
            return []
        with self._worker.calling(events):
            failures = deliver_in_transaction(self._worker.subscriber, events, self._worker.deadline())
        return first_of_each_aggregate(failures)

    def _correct(self, events: Sequence[Event], through: Sequence[Event], failures: Sequence[Failure]) -> None:
        """Correct the counters of the lanes, which were moved as if everything went through."""
        missed = Counter(event.lane for event in events)
        missed.subtract(event.lane for event in through)
        failed = Counter(failure.event.lane for failure in failures)
        lanes_count(self._worker.name, {lane: Count(processed=-missed[lane], errors=failed[lane]) for lane in failed})
