"""Settling: records what went through, on the condition that the lanes are still ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection, transaction

from outbox.leases import OURS_SQL, HeldLane

# A worker that is suspended inside this transaction holds the rows of its lanes, which nobody else can claim then:
# the server cuts it off.
GUARD_SQL: Final = "SELECT set_config('idle_in_transaction_session_timeout', %s, true)"
# Cursors alone need not wait for the disk: a crash of the server that loses the last moments delivers them again.
LAZY_GUARD_SQL: Final = GUARD_SQL + ", set_config('synchronous_commit', 'off', true)"

# The fence. Zero rows for a lane mean that somebody else has claimed it: nothing of it is recorded.
MOVE_SQL: Final = f"""
WITH ours AS ({OURS_SQL})
UPDATE outbox_lane AS l
   SET cursor = m.cursor, moved_at = clock_timestamp(), strikes = 0, attempts = 0,
       processed = l.processed + m.processed, errors = l.errors + m.errors
  FROM ours
  JOIN unnest(%(lanes)s::smallint[], %(cursors)s::bigint[], %(processed)s::bigint[], %(errors)s::bigint[])
       AS m (lane, cursor, processed, errors) ON m.lane = ours.lane
 WHERE l.id = ours.id
RETURNING l.lane
"""  # noqa: S608 - constants only
# Work on a lane that has cost workers their life is counted before it starts.
START_SQL: Final = """
UPDATE outbox_lane SET attempts = attempts + 1
 WHERE subscription_id = %(name)s AND lane = %(lane)s AND epoch = %(epoch)s RETURNING attempts
"""
COUNT_SQL: Final = """
UPDATE outbox_lane AS l SET processed = l.processed + c.processed, errors = l.errors + c.errors,
       retries = l.retries + c.retries
  FROM unnest(%(lanes)s::smallint[], %(processed)s::bigint[], %(errors)s::bigint[], %(retries)s::bigint[])
       AS c (lane, processed, errors, retries)
 WHERE l.subscription_id = %(name)s AND l.lane = c.lane
"""


@dataclass(frozen=True, slots=True)
class Move:
    """Where a lane's cursor goes, and how many events did and did not go through."""

    held: HeldLane
    cursor: int
    processed: int
    errors: int


@dataclass(slots=True)
class Count:
    """What is added to a lane's counters."""

    processed: int = 0
    errors: int = 0
    retries: int = 0


@contextmanager
def settling(seconds: float, *, lazy: bool = False) -> Iterator[None]:
    """A transaction in which the session may not idle longer than ``seconds``.

    Args:
        seconds: as said.
        lazy: whether its loss in a crash of the database server would do no harm.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(LAZY_GUARD_SQL if lazy else GUARD_SQL, [str(int(seconds * 1000))])
        yield


def lanes_move(name: str, moves: Sequence[Move]) -> set[int]:
    """Move cursors; the lanes that are still ours."""
    with connection.cursor() as cursor:
        cursor.execute(
            MOVE_SQL,
            {
                "name": name,
                "lanes": [move.held.lane for move in moves],
                "epochs": [move.held.epoch for move in moves],
                "cursors": [move.cursor for move in moves],
                "processed": [move.processed for move in moves],
                "errors": [move.errors for move in moves],
            },
        )
        return {row[0] for row in cursor.fetchall()}


def lanes_hold(name: str, lanes: Collection[HeldLane]) -> set[int]:
    """Lock the rows of lanes; those that are still ours."""
    held = list(lanes)
    with connection.cursor() as cursor:
        values = {"lanes": [lane.lane for lane in held], "epochs": [lane.epoch for lane in held]}
        # The same fence where no cursor moves: the rows are locked until the transaction ends.
        cursor.execute(OURS_SQL, {"name": name, **values})
        return {lane for _, lane in cursor.fetchall()}


def lane_start(name: str, held: HeldLane) -> int:
    """Count a start of work on the lane; 0 if it is no longer ours."""
    with connection.cursor() as cursor:
        cursor.execute(START_SQL, {"name": name, "lane": held.lane, "epoch": held.epoch})
        row = cursor.fetchone()
        return row[0] if row else 0


def lanes_count(name: str, counts: Mapping[int, Count]) -> None:
    """Add to the counters of lanes whose rows this transaction has locked."""
    if not counts:
        return
    added = list(counts.values())
    values: dict[str, Any] = {
        "lanes": list(counts),
        "processed": [one.processed for one in added],
        "errors": [one.errors for one in added],
        "retries": [one.retries for one in added],
    }
    with connection.cursor() as cursor:
        cursor.execute(COUNT_SQL, {"name": name, **values})
