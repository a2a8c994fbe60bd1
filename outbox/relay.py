"""The relay: sequences the log and brings its events to the subscribers.

One function for all who drain: Celery's beat, the long-running ``manage.py relay``, imports and tests. For each
subscriber it claims lanes, reads the next events of each, delivers them outside of any transaction, and settles in one
transaction that is conditional on the lanes' epochs. No status is written per event; what fails leaves rows.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from django.db import Error, connection

from outbox import metrics
from outbox.conf import outbox_settings
from outbox.delivering import Halted, deliver_in_transaction
from outbox.detours import Serving, crashed, detours_settle, detours_start
from outbox.errors import DeliveryError, ErrorClass
from outbox.events import Event
from outbox.failures import (
    HALTING,
    Failed,
    failure_of,
    failures_record,
    first_of_each_aggregate,
    is_database_trouble,
)
from outbox.leases import HeldLane, LaneLeases
from outbox.partitions import partitions_make
from outbox.reading import LaneRead, lanes_read
from outbox.sequencing import Sequencer
from outbox.settling import TALLY_SQL, Move, lane_start, lanes_hold, lanes_move, settling
from outbox.subscribers import Deadline, Failure, Subscriber, subscribers
from outbox.subscriptions import (
    Gate,
    breaker_close,
    breaker_open,
    gate_of,
    probe_claim,
    probe_return,
    subscription_ensure,
    subscription_pause,
    subscriptions_ensure,
)

log = structlog.get_logger(__name__)

SETTLE_SECONDS: Final = 0.1
IDLE_SETTLE_SECONDS: Final = 1.0
UPKEEP_SECONDS: Final = 60.0
LEASE_MARGIN_SECONDS: Final = 2.0
CRASHES: Final = 3
RESTING_SECONDS: Final = 0.02

# The history behind processed_at: at most one row each second in which the slowest lane moved.
WATERMARK_SQL: Final = """
INSERT INTO outbox_watermark (subscription_id, position)
SELECT %(name)s, min(cursor) FROM outbox_lane WHERE subscription_id = %(name)s
HAVING min(cursor) > COALESCE((SELECT max(position) FROM outbox_watermark WHERE subscription_id = %(name)s), 0)
ON CONFLICT DO NOTHING
"""


class SubscriberRelay:
    """Brings events to one subscriber, as far as its lanes are free; of one thread.

    Args:
        subscriber: whom it serves.
        resident: True for a relay that stays, and shares the lanes evenly with the other relays.
    """

    def __init__(self, subscriber: Subscriber, *, resident: bool = False) -> None:
        config = outbox_settings()
        self._subscriber = subscriber
        self._name = subscriber.name
        self._lease_seconds = config.lease_seconds
        self._batch = subscriber.batch_size or config.batch_size
        self._ladder = subscriber.retry_ladder()
        owner = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._leases = LaneLeases(self._name, owner, config.lease_seconds, resident=resident)
        self._sequencer = Sequencer()
        self._head = 0
        self._read_up_to = (-1, -1)
        self._tried = False
        self.resting = False
        self._next_upkeep = 0.0
        self._next_watermark = 0.0
        self._session: object = None

    def step(self) -> int:
        """One pass: sequence, serve what is due, deliver one chunk; how many events went through or failed.

        Raises:
            django.db.Error: the database is in trouble. What was delivered and not settled will come again.
        """
        try:
            return self._step()
        except Error:
            self._leases.forget()
            self._sequencer.forget()
            self._read_up_to = (-1, -1)
            raise

    def leave(self) -> None:
        """Settle what is done and give all lanes back."""
        if self._leases.held:
            self._settle(self._leases.held.values())
            self._mark()
        self._leases.leave()

    @property
    def unsettled(self) -> bool:
        """Whether something went through that is not settled yet."""
        return any(held.cursor != held.settled for held in self._leases.held.values())

    def _step(self) -> int:
        self._upkeep()
        self._leases.keep()
        excess = self._leases.excess()
        if excess:
            self._settle(excess)
            self._leases.release(excess)
        sequenced = self._sequencer.sequence_once()
        if sequenced is not None:
            self._head = max(self._head, sequenced.head)
        done = 0
        gate = self._gate()
        self._tried = False
        if gate is not Gate.CLOSED and self._leases.held:
            done = self._serve_detours(gate)
            if gate is Gate.OPEN or not self._tried:
                done += self._deliver_next(gate, known=sequenced is not None)
            if gate is Gate.PROBE and not self._tried:
                probe_return(self._name)
        self._settle_due()
        return done + (sequenced.events if sequenced is not None and sequenced.full else 0)

    def _gate(self) -> Gate:
        gate = gate_of(self._name)
        if gate is Gate.PROBE and not probe_claim(self._name, seconds=self._lease_seconds):
            return Gate.CLOSED
        return gate

    # -- new events ----------------------------------------------------------------------------------------

    def _deliver_next(self, gate: Gate, *, known: bool) -> int:
        head, now = self._head, time.monotonic()
        # With the sequencer's lock just held, nothing can have appeared behind the head that was read up to.
        if known and self._read_up_to == (head, self._leases.claims):
            self._pass_quiet(head)
            return 0
        lanes = [held for held in self._leases.held.values() if self._is_ready(held, now)]
        self.resting = len(lanes) < len(self._leases.held)
        if not lanes:
            return 0
        limits = [max(1, self._batch >> min(held.strikes, 30)) for held in lanes]
        reads = lanes_read(lanes, limits, self._subscriber.topics)
        for read in reads:
            read.held.short = read.short
        filled = [read for read in reads if read.last > read.held.cursor]
        if not filled:
            if not self.resting and known:
                self._read_up_to = (head, self._leases.claims)
                self._pass_quiet(head)
            return 0
        if gate is Gate.PROBE:
            filled = filled[:1]
        done = 0
        sound = [read for read in filled if not read.held.strikes]
        if sound:
            done += self._deliver_group(sound, head, gate)
        # A lane that has cost a worker its life is delivered alone, and others' work is safe before that.
        for read in filled:
            if read.held.strikes:
                self._settle(self._leases.held.values())
                done += self._deliver_group([read], head, gate)
                self._settle([read.held])
        return done

    def _is_ready(self, held: HeldLane, now: float) -> bool:
        if held.rest_until > now:
            return False
        # A transactional settle cannot be put off, so the lane itself waits: it moves at most ten times a second.
        resting = self._subscriber.transactional and held.short and now - held.settled_at < SETTLE_SECONDS
        return not resting

    def _deliver_group(self, reads: Sequence[LaneRead], head: int, gate: Gate) -> int:
        reads = [read for read in reads if self._leases.held.get(read.held.lane) is read.held]
        events = sorted(event for read in reads for event in read.events if event.aggregate not in read.held.blocked)
        alone = reads[0] if len(reads) == 1 and reads[0].held.strikes and len(events) == 1 else None
        known: list[Failure] = []
        if alone is not None:
            started = lane_start(self._name, alone.held)
            if started == 0:
                self._leases.drop([alone.held.lane])
                return 0
            if started > CRASHES:
                known = [Failure(events[0], ErrorClass.CRASH, "worker_died", "Workers died while they delivered this.")]
        if not self._lease_lasts():
            return 0
        began = time.monotonic()
        failures: list[Failure] | None
        if self._subscriber.transactional and not known:
            failures = self._deliver_inside(reads, events, head)
        else:
            failures = known or self._deliver_outside(events)
            if failures is not None:
                self._book(reads, failures, head)
        metrics.PROCESSING_SECONDS.labels(self._name).observe(time.monotonic() - began)
        if failures is None:
            # An exception that names no event: smaller and alone next time, until the event stands alone.
            for read in reads:
                read.held.strikes += 1
            return 1
        return self._after(events, failures, gate)

    def _lease_lasts(self) -> bool:
        needed = self._subscriber.call_seconds + LEASE_MARGIN_SECONDS
        if self._leases.remaining() < needed:
            self._leases.renew()
        return self._leases.remaining() >= needed

    def _deadline(self) -> Deadline:
        return Deadline.after(min(self._subscriber.call_seconds, self._leases.remaining()))

    def _deliver_outside(self, events: Sequence[Event]) -> list[Failure] | None:
        """Deliver outside of any transaction; None if it raised and no single event is to blame."""
        if not events:
            return []
        try:
            return self._subscriber.deliver(events, self._deadline())
        except Exception as exc:
            if isinstance(exc, Error) and is_database_trouble(exc):
                raise
            if len(events) > 1 and not (isinstance(exc, DeliveryError) and exc.error_class in HALTING):
                log.warning("delivery_raised", subscriber=self._name, events=len(events), error=type(exc).__name__)
                return None
            return [failure_of(event, exc) for event in events]

    def _book(self, reads: Sequence[LaneRead], failures: Sequence[Failure], head: int) -> None:
        """Take note of what went through in memory; failures are written at once, cursors within 0.1 s."""
        halted: dict[int, int] = {}
        for failure in failures:
            if failure.error_class in HALTING:
                event = failure.event
                halted[event.lane] = min(halted.get(event.lane, event.position), event.position)
        failed = [
            failure
            for failure in first_of_each_aggregate(failures)
            if failure.error_class not in HALTING
            and failure.event.position < halted.get(failure.event.lane, failure.event.position + 1)
        ]
        behind = {failure.event.aggregate: failure.event.position for failure in failed}
        for read in reads:
            held, stop = read.held, halted.get(read.held.lane)
            for event in read.events:
                if event.aggregate in held.blocked or (stop is not None and event.position >= stop):
                    continue
                if event.position < behind.get(event.aggregate, event.position + 1):
                    held.processed += 1
            if stop is not None:
                held.cursor = max(held.cursor, stop - 1)
                held.outages += 1
                held.rest_until = time.monotonic() + min(5.0, 0.25 * 2**held.outages)
            else:
                held.cursor = max(read.last, head) if read.short else read.last
                held.outages = 0
        if failed:
            for failure in failed:
                self._leases.held[failure.event.lane].errors += 1
            self._settle([read.held for read in reads], failed)

    def _deliver_inside(self, reads: Sequence[LaneRead], events: Sequence[Event], head: int) -> list[Failure]:
        """Deliver in the transaction that moves the cursors, after the fence."""
        counts = Counter(event.lane for event in events)
        moves = [
            Move(one.held, max(one.last, head) if one.short else one.last, counts[one.held.lane], 0) for one in reads
        ]
        try:
            with settling(self._lease_seconds):
                kept = lanes_move(self._name, moves)
                mine = [event for event in events if event.lane in kept]
                failures = deliver_in_transaction(self._subscriber, mine, self._deadline()) if mine else []
                failures = first_of_each_aggregate(failures)
                through = self._through(mine, failures)
                if failures:
                    self._count_failures(mine, through, failures)
                failures_record(self._name, self._ladder, [Failed(failure, 1) for failure in failures])
        except Halted as exc:
            return exc.for_all(events)
        self._leases.drop({read.held.lane for read in reads} - kept)
        for move in moves:
            if move.held.lane in kept:
                self._settled(move.held, move.cursor)
        for failure in failures:
            self._leases.held[failure.event.lane].blocked.add(failure.event.aggregate)
        if through:
            self._subscriber.after_commit(through)
        return failures

    @staticmethod
    def _through(events: Sequence[Event], failures: Sequence[Failure]) -> list[Event]:
        behind = {failure.event.aggregate: failure.event.position for failure in failures}
        return [event for event in events if event.position < behind.get(event.aggregate, event.position + 1)]

    def _count_failures(self, events: Sequence[Event], through: Sequence[Event], failures: Sequence[Failure]) -> None:
        """Correct the counters of the lanes, which were moved as if everything went through."""
        missed = Counter(event.lane for event in events)
        missed.subtract(event.lane for event in through)
        failed = Counter(failure.event.lane for failure in failures)
        lanes = list(failed)
        values: dict[str, Any] = {
            "name": self._name,
            "lanes": lanes,
            "processed": [-missed[lane] for lane in lanes],
            "errors": [failed[lane] for lane in lanes],
            "retries": [0] * len(lanes),
        }
        with connection.cursor() as cursor:
            cursor.execute(TALLY_SQL, values)

    def _after(self, events: Sequence[Event], failures: Sequence[Failure], gate: Gate) -> int:
        """Act on what a call told about the other side; how many events it settled."""
        self._tried = self._tried or bool(events)
        halting = [failure for failure in failures if failure.error_class in HALTING]
        for failure in halting:
            if failure.error_class is ErrorClass.CONFIGURATION:
                subscription_pause(name=self._name, reason=f"{failure.code}: {failure.message}"[:1000])
                return len(events) - len(halting)
        if halting and len(halting) == len(events):
            breaker_open(self._name, message=f"{halting[0].code}: {halting[0].message}")
        elif gate is Gate.PROBE and not halting:
            breaker_close(self._name)
        # Events that wait behind a detour count as well: the lane has moved.
        return max(1, len(events)) - len(halting)

    # -- detours -------------------------------------------------------------------------------------------

    def _serve_detours(self, gate: Gate) -> int:
        if not any(held.blocked for held in self._leases.held.values()):
            return 0
        self._settle(self._leases.held.values())
        if not self._lease_lasts():
            return 0
        topics = self._subscriber.topics
        served = detours_start(self._name, self._leases, seconds=self._lease_seconds, batch=self._batch, topics=topics)
        together = [one for one in served if not one.alone]
        done = 0
        for group in ([together] if together else []) + [[one] for one in served if one.alone]:
            done += self._serve_group(group, gate)
        return done

    def _serve_group(self, served: Sequence[Serving], gate: Gate) -> int:
        if not self._lease_lasts():
            return 0
        most = len(self._ladder) + 1
        known = [failure for failure in (crashed(one, most) for one in served) if failure is not None]
        hopeless = {failure.event.aggregate for failure in known}
        events = sorted(event for one in served if one.aggregate not in hopeless for event in one.events)
        failures: list[Failure] = []
        try:
            if not self._subscriber.transactional:
                failures = known + self._deliver_each(served, events)
            with settling(self._lease_seconds):
                if self._subscriber.transactional:
                    kept = lanes_hold(self._name, {one.held.lane: one.held for one in served}.values())
                    events = [event for event in events if event.lane in kept]
                    failures = known + (
                        deliver_in_transaction(self._subscriber, events, self._deadline()) if events else []
                    )
                finished = detours_settle(self._name, self._ladder, served, failures)
        except Halted as exc:
            failures = exc.for_all(events)
            with settling(self._lease_seconds):
                finished = detours_settle(self._name, self._ladder, served, failures)
        for one in served:
            if one.id in finished:
                one.held.blocked.discard(one.aggregate)
        if self._subscriber.transactional and (through := self._through(events, first_of_each_aggregate(failures))):
            self._subscriber.after_commit(through)
        return self._after(events, failures, gate)

    def _deliver_each(self, served: Sequence[Serving], events: Sequence[Event]) -> list[Failure]:
        failures = self._deliver_outside(events)
        if failures is not None:
            return failures
        # It raised and named no event: one aggregate at a time, and of each its next event only.
        found: list[Failure] = []
        for one in served:
            for event in one.events:
                failed = self._deliver_outside([event]) or []
                found += failed
                if failed and failed[0].error_class in HALTING:
                    return found
                if failed:
                    break
        return found

    # -- settling ------------------------------------------------------------------------------------------

    def _pass_quiet(self, head: int) -> None:
        """All lanes were read up to the head; the quiet ones follow it, or lag and retention would stand still."""
        now = time.monotonic()
        quiet = [
            held
            for held in self._leases.held.values()
            if held.cursor < head and now - held.settled_at >= IDLE_SETTLE_SECONDS
        ]
        for held in quiet:
            held.cursor = head
        self._settle(quiet)

    def _settle_due(self) -> None:
        now = time.monotonic()
        self._settle([held for held in self._leases.held.values() if now - held.settled_at >= SETTLE_SECONDS])
        if now >= self._next_watermark and self._leases.held:
            self._next_watermark = now + IDLE_SETTLE_SECONDS
            self._mark()

    def _mark(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(WATERMARK_SQL, {"name": self._name})

    def _settle(self, lanes: Iterable[HeldLane], failed: Sequence[Failure] = ()) -> None:
        moved = [held for held in lanes if held.cursor != held.settled]
        if not moved:
            return
        moves = [Move(held, held.cursor, held.processed, held.errors) for held in moved]
        with settling(self._lease_seconds):
            kept = lanes_move(self._name, moves)
            mine = [failure for failure in failed if failure.event.lane in kept]
            dead = failures_record(self._name, self._ladder, [Failed(failure, 1) for failure in mine])
        lost = {held.lane for held in moved} - kept
        if lost:
            log.warning("lanes_lost", subscriber=self._name, lanes=len(lost))
        self._leases.drop(lost)
        for held in moved:
            self._settled(held, held.cursor)
        for failure in mine:
            self._leases.held[failure.event.lane].blocked.add(failure.event.aggregate)
        if mine:
            log.warning("deliveries_failed", subscriber=self._name, failed=len(mine), dead=dead)

    @staticmethod
    def _settled(held: HeldLane, cursor: int) -> None:
        held.cursor = held.settled = cursor
        held.settled_at = time.monotonic()
        held.processed = held.errors = held.strikes = 0

    def _upkeep(self) -> None:
        session = connection.connection
        if session is None or session is not self._session:
            # Plans of wide reads look costly enough to be compiled, which takes longer than to run them.
            with connection.cursor() as cursor:
                cursor.execute("SET jit = off")
            self._session = connection.connection
        now = time.monotonic()
        if now >= self._next_upkeep:
            self._next_upkeep = now + UPKEEP_SECONDS
            subscription_ensure(self._subscriber)
            partitions_make(connection)


def relay_once(subscriber: Subscriber | None = None, *, seconds: float = 20.0) -> int:
    """Sequence and deliver until nothing is left that could be delivered now.

    Args:
        subscriber: only this one; None takes all of OUTBOX_SUBSCRIBERS, one after the other.
        seconds: begin nothing new after that long, for each subscriber.

    Returns:
        Events that went through or failed.

    Raises:
        django.db.Error: the database is in trouble.
    """
    if subscriber is None:
        subscriptions_ensure()
    done = 0
    for one in subscribers() if subscriber is None else (subscriber,):
        relay = SubscriberRelay(one)
        deadline = Deadline.after(seconds)
        try:
            while (count := relay.step()) or relay.resting:
                done += count
                if not deadline.remaining():
                    break
                if not count:
                    time.sleep(RESTING_SECONDS)
        finally:
            with suppress(Error):
                relay.leave()
    if done:
        log.info("outbox_drained", events=done)
    return done


def relay_until_idle(*, seconds: float = 60.0) -> int:
    """Run ``relay_once`` until it finds nothing, for tests, imports and demonstrations.

    Retries that are not due yet and paused subscribers are not waited for.

    Returns:
        Events that went through or failed.
    """
    deadline = Deadline.after(seconds)
    done = 0
    while count := relay_once(seconds=deadline.remaining()):
        done += count
        if not deadline.remaining():
            break
    return done
