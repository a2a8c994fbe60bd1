"""What the holder of an operation does, one step at a time; before each step it looks whether it was paused."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.db.models import DateTimeField, Func

from dbresilience.transactions import run_in_transaction
from operations.long_actions.carrying_out import CarryingOut, is_trouble
from operations.long_actions.errors import LeaseLost
from operations.long_actions.items import items_collect, items_in, items_next
from operations.long_actions.kinds import Kind, Outcome
from operations.long_actions.lease import Lease
from operations.long_actions.pace import Allowance, allowance_of, stop_reason
from operations.long_actions.steering import operation_end
from operations.models import ItemState, Operation, OperationItem, OperationState

log = structlog.get_logger(__name__)

STRIKES_ALONE: Final = 4
"""So many holders died in a row that the last of them had one item alone: that item is what kills them."""

FOLLOW_SECONDS: Final = 0.2
LOOK_SECONDS: Final = 1.0
LEASE_MARGIN: Final = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """What a step came to.

    Attributes:
        done: pages, items or outcomes that it dealt with.
        rest: seconds in which there is nothing to do; None goes on at once.
    """

    done: int = 0
    rest: float | None = None


class Holder:
    """Works on one operation under a lease.

    Args:
        lease: on the operation.
        kind: of the operation.
    """

    def __init__(self, lease: Lease, kind: Kind) -> None:
        self._lease = lease
        self._kind = kind
        self._carrying_out = CarryingOut(lease, kind)
        # A new holder asks what the one before it left started; it leaves nothing started itself.
        self._recovered = False
        # Items up to this one are carried out singly: their batch raised, and one of them is to blame.
        self._alone_through = 0
        self._next_follow = 0.0

    def step(self) -> Step:
        """One step: look after what is in flight, write down a page of items, or carry out one batch.

        Raises:
            LeaseLost: another worker took the operation, or somebody steered it while the step was under way.
            django.db.Error: the database is in trouble.
        """
        operation, now = self._read()
        needed = self._kind.call_seconds + LEASE_MARGIN
        if self._lease.remaining() < needed:
            self._lease.renew(1.5 * needed)
        running = operation.state == OperationState.RUNNING
        if operation.in_flight and not self._recovered and (rows := self._left_started(operation)):
            return self._recover(operation, now, rows)
        self._recovered = True
        if operation.in_flight and (done := self._follow(operation)):
            return Step(done)
        if not running:
            return Step(rest=LOOK_SECONDS)
        if not operation.collected:
            return self._collect(operation)
        if reason := stop_reason(operation):
            return self._end(OperationState.PAUSED, "operation.stopped", reason)
        if operation.begun < operation.items:
            return self._proceed(operation, now)
        if operation.in_flight:
            return Step(rest=FOLLOW_SECONDS)
        return self._end(OperationState.COMPLETED, "operation.completed")

    def _proceed(self, operation: Operation, now: dt.datetime) -> Step:
        """Carry out the next batch, if the canary, the pace and what waits elsewhere allow for one."""
        if operation.canary and not operation.canary_passed and operation.begun >= operation.canary:
            if operation.in_flight:
                return Step(rest=FOLLOW_SECONDS)
            self._update(canary_passed=True, ramp_from=now, refilled_at=now, tokens=0.0)
            return Step(1)
        if operation.in_flight >= self._kind.most_waiting:
            return Step(rest=FOLLOW_SECONDS)
        if operation.strikes >= STRIKES_ALONE:
            self._carrying_out.give_up(operation, items_next(operation, 1)[0], begun=False)
            return Step(1)
        allowance = self._allowance(operation, now)
        if not allowance.limit:
            return Step(rest=allowance.rest)
        rows = items_next(operation, allowance.limit)
        if self._kind.transactional:
            went = self._carrying_out.inside(operation, rows, allowance)
        else:
            went = self._carrying_out.outside(operation, rows, allowance)
            self._recovered = went
        if not went:
            self._alone_through = rows[-1].pk
        return Step(len(rows) if went else 1)

    def _allowance(self, operation: Operation, now: dt.datetime) -> Allowance:
        alone = operation.begun_through < self._alone_through
        return allowance_of(operation, now, largest=1 if alone else self._kind.batch_size)

    def _left_started(self, operation: Operation) -> Sequence[OperationItem]:
        """Items that were started and have no outcome, as many as may be repeated at once."""
        if self._kind.transactional:
            return []
        alone = operation.strikes > 2 or self._alone_through
        size = 1 if alone else max(1, self._kind.batch_size >> (2 * operation.strikes))
        return items_in(operation, ItemState.STARTED, size)

    def _recover(self, operation: Operation, now: dt.datetime, rows: Sequence[OperationItem]) -> Step:
        """Deal with what a worker that died, or a batch that raised, left started."""
        if operation.state == OperationState.PAUSED and self._kind.repeatable:
            return Step(rest=LOOK_SECONDS)
        if operation.state != OperationState.RUNNING or not self._kind.repeatable:
            message = "Its worker died before the outcome was recorded; look whether it was done."
            outcomes = [Outcome(row.pk, ItemState.FAILED, "outcome_unknown", message) for row in rows]
            self._carrying_out.record(operation, outcomes, clear=True)
        elif operation.strikes >= STRIKES_ALONE:
            self._carrying_out.give_up(operation, rows[0], begun=True)
        elif not self._carrying_out.outside(operation, rows, Allowance(len(rows), now), again=True):
            self._alone_through = rows[-1].pk
        return Step(len(rows))

    def _follow(self, operation: Operation) -> int:
        """Record how waiting items ended; how many did."""
        if time.monotonic() < self._next_follow:
            return 0
        rows = items_in(operation, ItemState.WAITING, self._kind.most_waiting)
        done = self._carrying_out.follow(operation, rows) if rows else 0
        if not done:
            self._next_follow = time.monotonic() + FOLLOW_SECONDS
        return done

    def _collect(self, operation: Operation) -> Step:
        def work() -> int:
            return items_collect(operation, self._kind, token=self._lease.token)

        try:
            return Step(1 + run_in_transaction(work))
        except LeaseLost:
            raise
        except Exception as exc:
            if is_trouble(exc):
                raise
            log.exception("operation_not_collected", operation=operation.pk, kind=self._kind.name)
            note = f"Its items could not be written down: {type(exc).__name__}."
            return self._end(OperationState.FAILED, "operation.failed", note)

    def _end(self, state: OperationState, action: str, note: str = "") -> Step:
        """Change the state by ourselves, unless somebody did meanwhile."""

        def work() -> None:
            held = Operation.objects.select_for_update(no_key=True).filter(
                pk=self._lease.id, lease_token=self._lease.token, state=OperationState.RUNNING
            )
            if (operation := held.first()) is None:
                raise LeaseLost
            operation_end(operation, state, action=action, note=note)

        run_in_transaction(work)
        return Step(1, rest=0.0)

    def _read(self) -> tuple[Operation, dt.datetime]:
        held = Operation.objects.filter(pk=self._lease.id, lease_token=self._lease.token)
        operation = held.annotate(now=_Clock()).first()
        if operation is None:
            raise LeaseLost
        moment: dt.datetime = operation.now  # type: ignore[attr-defined]
        return operation, moment

    def _update(self, **changes: Any) -> None:
        held = Operation.objects.filter(pk=self._lease.id, lease_token=self._lease.token)
        if not held.update(**changes):
            raise LeaseLost


class _Clock(Func):
    function = "clock_timestamp"
    output_field = DateTimeField()
