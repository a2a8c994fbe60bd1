"""A cut through the log: a transaction that sees exactly what the events up to one place have done, and no more.

Whoever starts from present state, and not from the first event, needs one: each later event is then news to it, and no
earlier one is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from django.db import DatabaseError, connection, transaction

from dbresilience.sqlstate import DEADLOCK_DETECTED, SERIALIZATION_FAILURE, sqlstate_of
from outbox.errors import OutboxError
from outbox.sequencing import LOCK_KEY, MOVE_SQL

T = TypeVar("T")

TRIES: Final = 200
PAUSE_SECONDS: Final = 0.05
_MOVED_AT_ONCE: Final = 5_000

DRAWN_SQL: Final = "SELECT last_value FROM outbox_log_position_seq"
EXPORT_SQL: Final = "SELECT pg_export_snapshot()"
LOCK_SQL: Final = "SELECT pg_try_advisory_xact_lock(%s)"


class LogBusy(OutboxError):
    """No moment was found at which the log stood still; try again."""


def at_cut(function: Callable[[int], T]) -> T:
    """Call ``function`` in a transaction that sees exactly the effects of the events up to a place of the log.

    In one snapshot all events that it shows are given their place, by another connection that has taken the same
    snapshot; then nothing that the snapshot shows comes after the last of those places. Nothing that it does not show
    has come before: for that a sequencer would have had to run between the first look at the sequence of places and
    the moment when its lock was ours. If it had drawn a place in between, the sequence tells. If it had drawn it
    before, its rows were there when the snapshot was taken and are gone now, which is a serialization failure. Then
    all is tried again. The sequencer waits for the moving alone, not for ``function``.

    Args:
        function: gets the place; database work alone, that may run again whole.

    Raises:
        LogBusy: no such moment was found.
    """
    if connection.in_atomic_block:
        raise transaction.TransactionManagementError("A cut through the log is a transaction of its own.")
    for _ in range(TRIES):
        with connection.cursor() as cursor:
            cursor.execute(DRAWN_SQL)
            drawn = cursor.fetchone()[0]
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    cursor.execute(EXPORT_SQL)
                    snapshot = cursor.fetchone()[0]
                place = _placed(snapshot, drawn)
                if place is not None:
                    return function(place)
        except DatabaseError as exc:
            # What it changes was changed by somebody else meanwhile.
            if sqlstate_of(exc) not in (SERIALIZATION_FAILURE, DEADLOCK_DETECTED):
                raise
        time.sleep(PAUSE_SECONDS)
    raise LogBusy(LogBusy.__doc__)


def _placed(snapshot: str, drawn: int) -> int | None:
    """Give all events of a snapshot their places, on another connection; the last place, or None to try again."""
    other: Any = connection.copy()
    try:
        with _transaction(other), other.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SET TRANSACTION SNAPSHOT %s", [snapshot])
            cursor.execute(LOCK_SQL, [LOCK_KEY])
            if not cursor.fetchone()[0]:
                return None
            cursor.execute(DRAWN_SQL)
            if cursor.fetchone()[0] != drawn:
                return None
            while True:
                cursor.execute(MOVE_SQL, {"floor": 0, "batch": _MOVED_AT_ONCE})
                moved, head, _ = cursor.fetchone()
                if moved < _MOVED_AT_ONCE:
                    return int(head)
    except DatabaseError as exc:
        if sqlstate_of(exc) != SERIALIZATION_FAILURE:
            raise
        return None
    finally:
        other.close()


@contextmanager
def _transaction(other: Any) -> Iterator[None]:
    """A transaction of a connection that has no alias."""
    other.set_autocommit(False)
    try:
        yield
    except BaseException:
        other.rollback()
        raise
    other.commit()
