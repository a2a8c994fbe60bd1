"""Carrying out one batch: effect, outcomes and the advance of the operation, so that nothing is done twice.

For a transactional kind all three commit together, on the condition that the lease is still ours and that nobody paused
or cancelled meanwhile: a worker that died left nothing behind, and one that was only suspended is rolled back whole.
For the others the items are marked as started first, in a transaction of its own; what a worker that died left started
is for the next holder to repeat or to give up (see ``holder``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from django.db import connection

from dbresilience.error_texts import error_text
from dbresilience.sqlstate import is_connection_loss, sqlstate_of
from dbresilience.transactions import run_in_transaction
from operations.long_actions.errors import LeaseLost
from operations.long_actions.items import items_add, items_given, items_settle, items_start
from operations.long_actions.kinds import Batch, Kind, Outcome
from operations.long_actions.lease import Lease
from operations.long_actions.pace import Allowance, batch_after
from operations.models import ItemState, Operation, OperationItem

log = structlog.get_logger(__name__)

# Counts only ever grow, by what the same transaction wrote. Recent outcomes are halved now and then, so that old ones
# fade. Strikes are forgotten when the batch that brought them is behind.
ADVANCE_SQL: Final = """
UPDATE operations_operation
   SET items = items + %(added)s, begun = begun + %(begun)s, begun_through = greatest(begun_through, %(through)s),
       succeeded = succeeded + %(succeeded)s, failed = failed + %(failed)s, skipped = skipped + %(skipped)s,
       recent_ended = recent_ended * CASE WHEN recent_ended > 200 THEN 0.5 ELSE 1 END + %(succeeded)s + %(failed)s,
       recent_failed = recent_failed * CASE WHEN recent_ended > 200 THEN 0.5 ELSE 1 END + %(failed)s,
       tokens = coalesce(%(tokens)s, tokens), refilled_at = coalesce(%(refilled_at)s, refilled_at),
       batch = coalesce(%(batch)s, batch),
       strikes = CASE WHEN %(clear)s OR begun + %(begun)s > careful_through THEN 0 ELSE strikes END,
       updated_at = clock_timestamp()
 WHERE id = %(id)s AND lease_token = %(token)s AND (state = 'running' OR NOT %(must_run)s)
"""


def is_trouble(exc: Exception) -> bool:
    """Whether the database itself is in trouble, so that no item is to be blamed and the batch is tried again."""
    state = sqlstate_of(exc) or ""
    return state[:2] in ("08", "40", "53", "57") or state == "55P03" or is_connection_loss(exc)


class CarryingOut:
    """Carries out batches of one operation under a lease.

    Args:
        lease: on the operation.
        kind: of the operation.
    """

    def __init__(self, lease: Lease, kind: Kind) -> None:
        self._lease = lease
        self._kind = kind

    def inside(self, operation: Operation, rows: Sequence[OperationItem], allowance: Allowance) -> bool:
        """Effect, outcomes and advance in one transaction; False if the kind raised and an item is to blame.

        Raises:
            LeaseLost: another worker took the operation, or somebody paused or cancelled it; nothing was done.
            django.db.Error: the database is in trouble; nothing was done.
        """
        batch = self._batch(operation, rows)
        started = time.monotonic()

        def work() -> None:
            outcomes = self._complete(rows, self._kind.carry_out(batch))
            size = batch_after(allowance.limit, len(rows), time.monotonic() - started, self._kind.batch_size)
            self._settle(operation, outcomes, begun=rows, allowance=allowance, batch=size, must_run=True)

        try:
            run_in_transaction(work)
        except LeaseLost:
            raise
        except Exception as exc:
            if is_trouble(exc):
                raise
            log.warning("operation_batch_raised", operation=operation.pk, items=len(rows), error=type(exc).__name__)
            if len(rows) > 1:
                return False
            self._refuse(operation, rows, exc, allowance)
        return True

    def outside(
        self, operation: Operation, rows: Sequence[OperationItem], allowance: Allowance, *, again: bool = False
    ) -> bool:
        """Mark as started, carry out without a transaction, record; False if it raised and is to be repeated singly.

        Args:
            again: whether the items were started before, by a worker that died or in a batch that raised.

        Raises:
            LeaseLost: another worker took the operation. If that was before the call, nothing was done.
            django.db.Error: the database is in trouble.
        """

        def begin() -> None:
            items_start(rows)
            self._advance(operation, [], begun=[] if again else rows, allowance=allowance, must_run=True)

        run_in_transaction(begin)
        started = time.monotonic()
        try:
            outcomes = self._complete(rows, self._kind.carry_out(self._batch(operation, rows)))
        except Exception as exc:
            if is_trouble(exc):
                raise
            log.warning("operation_batch_raised", operation=operation.pk, items=len(rows), error=type(exc).__name__)
            if len(rows) > 1 and self._kind.repeatable:
                return False
            code = type(exc).__name__ if len(rows) == 1 else "outcome_unknown"
            outcomes = [Outcome(row.pk, ItemState.FAILED, code, error_text(exc)) for row in rows]
        size = batch_after(allowance.limit, len(rows), time.monotonic() - started, self._kind.batch_size)
        self.record(operation, outcomes, batch=size)
        return True

    def record(
        self, operation: Operation, outcomes: Sequence[Outcome], *, batch: int | None = None, clear: bool = False
    ) -> None:
        """Write down outcomes of items that were begun before, whatever the operation's state is by now.

        Args:
            batch: items of the next batch.
            clear: whether what killed the holders is found.
        """

        def work() -> None:
            self._settle(operation, outcomes, begun=[], batch=batch, clear=clear)

        run_in_transaction(work)

    def give_up(self, operation: Operation, row: OperationItem, *, begun: bool) -> None:
        """Fail the item that was alone with each of the last holders that died."""
        message = "Each worker that had it died, the last one with nothing else in hand."
        outcome = Outcome(row.pk, ItemState.FAILED, "worker_died", message)

        def work() -> None:
            self._settle(operation, [outcome], begun=[] if begun else [row], clear=True)

        run_in_transaction(work)

    def follow(self, operation: Operation, rows: Sequence[OperationItem]) -> int:
        """Ask how waiting items ended, and record it; how many did."""
        known = {row.pk for row in rows}
        outcomes = [
            one
            for one in self._kind.follow(self._batch(operation, rows))
            if one.item_id in known and one.state is not ItemState.WAITING
        ]
        if outcomes:
            self.record(operation, outcomes)
        return len(outcomes)

    def _refuse(
        self, operation: Operation, rows: Sequence[OperationItem], exc: Exception, allowance: Allowance
    ) -> None:
        outcomes = [Outcome(row.pk, ItemState.FAILED, type(exc).__name__, error_text(exc)) for row in rows]

        def work() -> None:
            self._settle(operation, outcomes, begun=rows, allowance=allowance, must_run=True)

        run_in_transaction(work)

    def _batch(self, operation: Operation, rows: Sequence[OperationItem]) -> Batch:
        return Batch(
            operation_id=operation.pk,
            filter=operation.filter,
            actor=operation.actor,
            reason=operation.reason,
            items=items_given(operation, rows),
            ends=time.monotonic() + self._kind.call_seconds,
        )

    @staticmethod
    def _complete(rows: Sequence[OperationItem], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """One outcome for each item, whatever the kind returned."""
        given = {one.item_id: one for one in outcomes}
        forgotten = "The operation's kind gave no outcome."
        return [given.get(row.pk) or Outcome(row.pk, ItemState.FAILED, "no_outcome", forgotten) for row in rows]

    def _settle(self, operation: Operation, outcomes: Sequence[Outcome], **advance: Any) -> None:
        items_settle(operation, outcomes)
        added = items_add(operation, [item for one in outcomes for item in one.then])
        self._advance(operation, outcomes, added=added, **advance)

    def _advance(
        self,
        operation: Operation,
        outcomes: Sequence[Outcome],
        *,
        begun: Sequence[OperationItem],
        added: int = 0,
        allowance: Allowance | None = None,
        batch: int | None = None,
        clear: bool = False,
        must_run: bool = False,
    ) -> None:
        """Move the operation on, last in the transaction, so that nobody who steers it waits for the batch."""
        states = [one.state for one in outcomes]
        values: dict[str, Any] = {
            "id": operation.pk,
            "token": self._lease.token,
            "begun": len(begun),
            "added": added,
            "through": begun[-1].pk if begun else 0,
            "succeeded": states.count(ItemState.SUCCEEDED),
            "failed": states.count(ItemState.FAILED),
            "skipped": states.count(ItemState.SKIPPED),
            "tokens": None if allowance is None or allowance.tokens is None else allowance.tokens - len(begun),
            "refilled_at": None if allowance is None or allowance.tokens is None else allowance.at,
            "batch": batch,
            "clear": clear,
            "must_run": must_run,
        }
        with connection.cursor() as cursor:
            cursor.execute(ADVANCE_SQL, values)
            if cursor.rowcount != 1:
                raise LeaseLost
