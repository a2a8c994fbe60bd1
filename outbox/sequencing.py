"""Sequencing: gives committed events their places in the log, in the order of their commits.

Ids from a database sequence do not become visible in order, so a reader that remembers "the last id I saw" loses
events. Here every event waits in ``outbox_unsequenced`` until a sequencer, one at a time in the whole database, moves
what it can see to the log. Positions are drawn under the sequencer's lock, which PostgreSQL lets go of only after the
transaction has become visible: whoever sees a position sees every smaller one that will ever exist.

Within one aggregate ids follow commits (the row lock in ``outbox.publishing``). So if a sequencer sees an event, it
sees those before it in its aggregate as well, and puts them in order by sorting ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog
from django.db import IntegrityError, connection, transaction

from dbresilience.sqlstate import sqlstate_of
from outbox.partitions import partitions_make

log = structlog.get_logger(__name__)

BATCH: Final = 5_000
# Any number that nobody else locks in this database.
LOCK_KEY: Final = 7_203_411_580_364_201
IDLE_MILLISECONDS: Final = 10_000
_NO_PARTITION: Final = "23514"

# First statement of a run. Tries the lock; a sequencer that is suspended with the lock in its hands is cut off by the
# server. Its commit does not wait for the disk: whatever builds on a position (a cursor, an effect) is later in the
# write-ahead log, so a crash that loses the position loses those as well, and the event is sequenced anew.
# ``drawn`` must be read before this transaction has an id of its own, which the second statement gives it.
ENTER_SQL: Final = """
SELECT pg_try_advisory_xact_lock(%(key)s),
       set_config('idle_in_transaction_session_timeout', %(idle)s, true)
         || set_config('synchronous_commit', 'off', true),
       (SELECT last_value FROM outbox_event_id_seq) AS drawn,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin
"""

# Second statement: moves a batch. ANY (ARRAY(…)) and not IN: the plan stays an index scan whatever the statistics say
# of a table that is empty one moment and full the next. The position is drawn above the sort, so it follows the id.
# The head: every position up to it was drawn by this run or an earlier one, and runs do not overlap.
MOVE_SQL: Final = """
WITH taken AS (
  DELETE FROM outbox_unsequenced
   WHERE id = ANY (ARRAY(SELECT id FROM outbox_unsequenced WHERE id > %(floor)s ORDER BY id LIMIT %(batch)s))
  RETURNING id, lane
), placed AS (
  INSERT INTO outbox_log (event_id, lane) SELECT id, lane FROM taken ORDER BY id RETURNING 1
)
SELECT (SELECT count(*) FROM placed),
       (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_log_position_seq),
       pg_current_xact_id_if_assigned()::text::bigint
"""


@dataclass(frozen=True, slots=True)
class Sequenced:
    """What one run did.

    Attributes:
        events: how many got their place.
        head: a position up to which everything is visible from now on.
        full: whether the batch was full, so that more may wait.
    """

    events: int
    head: int
    full: bool


class Sequencer:
    """The sequencer of one connection.

    It remembers a floor: no event with an id up to it is still unsequenced, or ever will be. The floor spares each run
    the dead index entries of all events before it, which pile up while some session holds an old snapshot (a million
    of them: 20 ms a run; with the floor 0.3).

    How the floor may move: a transaction that drew an id up to ``drawn`` had its own transaction id by then (it bumps
    its aggregate first), and that is below ``own``, the id that this run gets after it has read ``drawn``. Once a later
    run's snapshot has an xmin above ``own`` all of those have ended, and when that run's batch is not full, none of
    their events are left. The snapshot's xmax must not stand in for ``own``: ids below it may be given out later.
    """

    def __init__(self) -> None:
        self._floor = 0
        self._candidate: tuple[int, int] | None = None

    def sequence_once(self) -> Sequenced | None:
        """Move one batch to the log; None if another sequencer is at work.

        Raises:
            django.db.Error: the database's; nothing was moved.
        """
        try:
            with transaction.atomic():
                run = self._run()
        except IntegrityError as exc:
            self.forget()
            if sqlstate_of(exc) != _NO_PARTITION:
                raise
            log.error("log_partition_missing")
            partitions_make(connection)
            return None
        except BaseException:
            self.forget()
            raise
        if run is None:
            return None
        # Only now, after the commit: had it failed, the batch would still be waiting, below the floor.
        self._raise_floor(run)
        return Sequenced(run.events, run.head, run.events >= BATCH)

    def forget(self) -> None:
        """Forget the floor: what is known of one database server need not hold on another that took its place."""
        self._floor, self._candidate = 0, None

    def _run(self) -> _Run | None:
        with connection.cursor() as cursor:
            cursor.execute(ENTER_SQL, {"key": LOCK_KEY, "idle": str(IDLE_MILLISECONDS)})
            entered, _, drawn, xmin = cursor.fetchone()
            if not entered:
                return None
            if drawn < self._floor:
                self.forget()
            cursor.execute(MOVE_SQL, {"floor": self._floor, "batch": BATCH})
            events, head, own = cursor.fetchone()
        return _Run(events, head, drawn, xmin, own)

    def _raise_floor(self, run: _Run) -> None:
        if self._candidate is not None and run.events < BATCH and run.xmin > self._candidate[1]:
            self._floor, self._candidate = self._candidate[0], None
        if self._candidate is None and run.own is not None and run.drawn > self._floor:
            self._candidate = (run.drawn, run.own)


@dataclass(frozen=True, slots=True)
class _Run:
    """What one run saw: ``drawn``, ``xmin`` and ``own`` as in the class above."""

    events: int
    head: int
    drawn: int
    xmin: int
    own: int | None
