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
from outbox.failures import Failed, failures_record, successes_record
from outbox.gates import Gate
from outbox.leases import HeldLane
from outbox.naming import batch_named, each_named
from outbox.passing import Outcome, delivered
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
        self._suspects_first = False

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
        # A lane that has cost a worker its life is delivered alone; the work of others is safe before that.
        groups = [[read] for read in suspect]
        if sound:
            groups.insert(len(groups) if self._suspects_first else 0, sound)
        self._suspects_first = False
        done, began = 0, time.monotonic()
        for number, group in enumerate(groups):
            if number and not self._worker.may_follow(began):
                # Pause and breaker are looked at first. Those whose turn it was not come before the others then.
                self._suspects_first = group is not sound
                break
            if group is sound:
                done += self._deliver_group(sound, head)
                continue
            self._cursors.settle_all()
            done += self._deliver_group(group, head)
            self._cursors.settle([group[0].held])
        return done

    def _deliver_group(self, reads: Sequence[LaneRead], head: int) -> int:
        if not self._worker.lease_lasts():
            return 0
        held = self._worker.leases.held
        reads = [read for read in reads if held.get(read.held.lane) is read.held]
        if not reads:
            return 0
        events = sorted(event for read in reads for event in read.events if event.aggregate not in read.held.blocked)
        outcome: Outcome | None
        started = 0
        if reads[0].held.strikes and len(events) == 1:
            started = lane_start(self._worker.name, reads[0].held)
            if started == 0:
                self._worker.leases.drop([reads[0].held.lane])
                return 0
        if started > CRASHES:
            failure = Failure(events[0], ErrorClass.CRASH, CRASHED_CODE, CRASHED_MESSAGE)
            outcome = Outcome.without_call(self._worker, failure)
            self._cursors.book(reads, outcome, head)
        elif self._worker.subscriber.transactional:
            outcome = self._deliver_inside(reads, events, head)
        else:
            outcome = delivered(self._worker, events, self._worker.deliver_outside)
            if outcome is None:
                # It raised and named no event: fewer and alone next time, until the event stands alone.
                for read in reads:
                    read.held.strikes += 1
                return 1
            self._cursors.book(reads, outcome, head)
        if events:
            name, seconds = self._worker.name, self._worker.call_seconds
            log.info(
                "events_processed",
                subscriber=name,
                failed=outcome.failures,
                duration_ms=round(seconds * 1000, 1),
                **batch_named(events),
            )
            each_named("event_processed", name, events)
        return self._worker.conclude(events, outcome.halting)

    def _deliver_inside(self, reads: Sequence[LaneRead], events: Sequence[Event], head: int) -> Outcome:
        """Deliver in the transaction that moves the cursors, after the fence: effect and cursor commit together."""
        name, leases = self._worker.name, self._worker.leases
        counts = Counter(event.lane for event in events)
        moves = [Move(read.held, read.reach(head), counts[read.held.lane], 0) for read in reads]
        try:
            with settling(self._worker.lease_seconds):
                kept = lanes_move(name, moves)
                mine = [event for event in events if event.lane in kept]
                outcome = delivered(self._worker, mine, self._inside)
                through = outcome.through(mine)
                if outcome.failed:
                    self._correct(mine, through, outcome.failed)
                    failures_record(self._worker.handling, outcome.failed)
                successes_record(self._worker.handling, outcome.successes(through))
        except Halted as exc:
            return Outcome(halting=exc.for_all(events))
        leases.drop({read.held.lane for read in reads} - kept)
        for move in moves:
            if move.held.lane in kept:
                self._cursors.settled(move.held, move.cursor)
        leases.block(outcome.failed)
        self._worker.tally.add([event.topic for event in through], [one.failure.event.topic for one in outcome.failed])
        if through:
            self._worker.subscriber.after_commit(through)
        return outcome

    def _inside(self, events: Sequence[Event]) -> list[Failure]:
        if not events:
            return []
        with self._worker.calling(events):
            return deliver_in_transaction(self._worker.subscriber, events, self._worker.deadline())

    def _correct(self, events: Sequence[Event], through: Sequence[Event], failed: Sequence[Failed]) -> None:
        """Correct the counters of the lanes, which were moved as if everything went through."""
        missed = Counter(event.lane for event in events)
        missed.subtract(event.lane for event in through)
        errors = Counter(one.failure.event.lane for one in failed)
        lanes_count(self._worker.name, {lane: Count(processed=-missed[lane], errors=errors[lane]) for lane in errors})
