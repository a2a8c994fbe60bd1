"""Cursors: moved in memory as events go through, written at most ten times a second for each lane."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import structlog
from django.db import connection

from outbox.failures import Failed, failures_record, successes_record
from outbox.leases import HeldLane
from outbox.passing import Outcome
from outbox.reading import LaneRead
from outbox.settling import Move, lanes_move, settling
from outbox.worker import Worker

log = structlog.get_logger(__name__)

SETTLE_SECONDS: Final = 0.1
QUIET_SECONDS: Final = 1.0
REST_SECONDS: Final = (0.25, 5.0)

# The history behind processed_at: at most one row each second in which the slowest lane moved.
WATERMARK_SQL: Final = """
INSERT INTO outbox_watermark (subscription_id, position)
SELECT %(name)s, min(cursor) FROM outbox_lane WHERE subscription_id = %(name)s
HAVING min(cursor) > COALESCE((SELECT max(position) FROM outbox_watermark WHERE subscription_id = %(name)s), 0)
ON CONFLICT DO NOTHING
"""


class Cursors:
    """The cursors of the lanes that a worker holds.

    What went through outside of a transaction is written a little later; if the worker dies before, it comes again.
    A failure is never put off: its rows and the cursor that passes it are written in one transaction, at once.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._next_settle = 0.0
        self._next_mark = 0.0

    @property
    def unsettled(self) -> bool:
        """Whether something went through that is not written yet."""
        return any(held.cursor != held.settled for held in self._worker.leases.held.values())

    def book(self, reads: Sequence[LaneRead], outcome: Outcome, head: int) -> None:
        """Take note of what became of a batch that was delivered outside of a transaction.

        A lane stops before the first event that an outage hit, and comes again from there on: what its later events
        did does not count. The other failures become deliveries.

        Args:
            reads: what was delivered; an aggregate on a detour was left out.
            outcome: what became of it.
            head: of the log, before it was read.
        """
        stops: dict[int, int] = {}
        for failure in outcome.halting:
            lane, position = failure.event.lane, failure.event.position
            stops[lane] = min(stops.get(lane, position), position)
        failed = [
            one
            for one in outcome.failed
            if one.failure.event.position < stops.get(one.failure.event.lane, one.failure.event.position + 1)
        ]
        errors = Counter(one.failure.event.lane for one in failed)
        topics: list[str] = []
        for read in reads:
            held, stop = read.held, stops.get(read.held.lane, read.last + 1)
            events = [event for event in read.events if event.position < stop and event.aggregate not in held.blocked]
            through = outcome.through(events)
            held.processed += len(through)
            topics += [event.topic for event in through]
            held.successes += outcome.successes(through)
            if held.lane in stops:
                held.cursor = max(held.cursor, stop - 1)
                held.outages += 1
                first, longest = REST_SECONDS
                held.rest_until = time.monotonic() + min(longest, first * 2 ** min(held.outages, 10))
            else:
                held.cursor = read.reach(head)
                held.outages = 0
            held.errors += errors[held.lane]
        self._worker.tally.add(topics, [one.failure.event.topic for one in failed])
        if failed:
            self.settle([read.held for read in reads], failed)

    def settle(self, lanes: Iterable[HeldLane], failed: Sequence[Failed] = ()) -> None:
        """Write the cursors of lanes that moved, and failures that they pass; lanes that are lost are dropped."""
        moved = [held for held in lanes if held.cursor != held.settled]
        if not moved:
            return
        name, leases = self._worker.name, self._worker.leases
        moves = [Move(held, held.cursor, held.processed, held.errors) for held in moved]
        with settling(self._worker.lease_seconds, lazy=not failed):
            kept = lanes_move(name, moves)
            mine = [one for one in failed if one.failure.event.lane in kept]
            successes_record(
                self._worker.handling, [one for held in moved if held.lane in kept for one in held.successes]
            )
            dead = failures_record(self._worker.handling, mine)
        lost = {held.lane for held in moved} - kept
        if lost:
            log.warning("lanes_lost", subscriber=name, lanes=len(lost))
            leases.drop(lost)
        for held in moved:
            self.settled(held, held.cursor)
        leases.block(mine)
        if mine:
            log.warning("deliveries_failed", subscriber=name, failed=len(mine), dead=dead)

    @staticmethod
    def settled(held: HeldLane, cursor: int) -> None:
        """Take note that the cursor is written."""
        held.cursor = held.settled = cursor
        held.settled_at = time.monotonic()
        held.processed = held.errors = held.strikes = 0
        held.successes.clear()

    def settle_all(self) -> None:
        """Write all that moved."""
        self.settle(self._worker.leases.held.values())

    def settle_due(self) -> None:
        """Write what moved, ten times a second, and the watermark, once."""
        now = time.monotonic()
        held = self._worker.leases.held
        if now >= self._next_settle:
            self._next_settle = now + SETTLE_SECONDS
            self.settle_all()
        self._worker.tally.write_due()
        if held and now >= self._next_mark:
            self._next_mark = now + QUIET_SECONDS
            self.mark()

    def pass_quiet(self, head: int) -> None:
        """All lanes were read up to the head; the quiet ones follow it, or lag and retention would stand still."""
        now = time.monotonic()
        quiet = [
            held
            for held in self._worker.leases.held.values()
            if held.cursor < head and now - held.settled_at >= QUIET_SECONDS
        ]
        for held in quiet:
            held.cursor = head
        self.settle(quiet)

    def mark(self) -> None:
        """Write how far all lanes are by now."""
        with connection.cursor() as cursor:
            cursor.execute(WATERMARK_SQL, {"name": self._worker.name})
