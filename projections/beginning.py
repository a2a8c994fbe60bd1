"""Where builds begin: at the log's first event, or at the present state where that event was removed by retention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from django.db import connection

from dbresilience.transactions import run_in_transaction
from operations.errors import ProblemError
from outbox.cutting import LogBusy, at_cut
from outbox.retention import log_is_whole
from projections.projection import Projection
from projections.registry import projection_names

T = TypeVar("T")

# A partition of the log goes under a lock that conflicts with this one: until our transaction has ended, and then the
# new build's checkpoint is there to be seen.
HOLD_SQL: Final = "LOCK TABLE outbox_event IN ACCESS SHARE MODE"
# The last place that no build needs any more: not to read on, not for an event that failed, and not to compute an
# aggregate anew. By the few rows of builds, and the partial indexes of what is active.
DONE_SQL: Final = """
SELECT least((SELECT min(cursor) FROM projections_build WHERE state <> 'retired' AND projection = ANY (%(names)s)),
             (SELECT min(f.position) - 1 FROM projections_failure f
                JOIN projections_build b ON b.id = f.build_id AND b.state <> 'retired'
               WHERE f.state IN ('retrying', 'manual')),
             (SELECT 0 FROM projections_detour d JOIN projections_build b ON b.id = d.build_id AND b.state <> 'retired'
               WHERE d.rebuild LIMIT 1))
"""


class LogNotWhole(ProblemError):
    """The first events of this read model's topics were removed by retention, and it has no way to do without them."""

    status = 409
    code = "log_not_whole"
    title = "Log not whole"


class NeedsOwnTransaction(ProblemError):
    """It begins at the present state, in a transaction of its own. Send it without Idempotency-Key: its token makes it
    happen once."""

    status = 409
    code = "needs_own_transaction"
    title = "Needs a transaction of its own"


class LogMoves(ProblemError):
    """The log did not stand still for a moment. Try again."""

    status = 503
    code = "log_moves"
    title = "Log moves"


class _NotWhole(Exception):
    """It must begin at the present state."""


def has_bootstrap(projection: Projection) -> bool:
    """Whether the projection can begin at the present state."""
    return type(projection).bootstrap is not Projection.bootstrap


def build_begin(projection: Projection, work: Callable[[int | None], T]) -> T:
    """Run ``work`` in a transaction, with the place at which a build that it makes begins.

    Args:
        projection: whose build it is.
        work: gets None for the log's first event; else a place, and its transaction sees exactly what the events up to
            there have done.

    Raises:
        LogNotWhole: the first events are gone, and the projection has no ``bootstrap``.
        NeedsOwnTransaction: it would begin at the present state, and a transaction is open.
        LogMoves: no place was found; try again.
    """

    def from_first() -> T:
        with connection.cursor() as cursor:
            cursor.execute(HOLD_SQL)
        if not log_is_whole(projection.topics):
            raise _NotWhole
        return work(None)

    try:
        return run_in_transaction(from_first)
    except _NotWhole:
        require_bootstrap(projection)
    if connection.in_atomic_block:
        raise NeedsOwnTransaction
    try:
        return at_cut(work)
    except LogBusy as exc:
        raise LogMoves(headers={"Retry-After": "1"}) from exc


def require_bootstrap(projection: Projection) -> None:
    """Refuse what would begin at events that are gone.

    Raises:
        LogNotWhole: the projection has no ``bootstrap``.
    """
    if not has_bootstrap(projection):
        raise LogNotWhole


def log_done_through() -> int | None:
    """The last place of the log that no read model needs any more; None if there is none."""
    with connection.cursor() as cursor:
        cursor.execute(DONE_SQL, {"names": projection_names()})
        found: int | None = cursor.fetchone()[0]
    return found
