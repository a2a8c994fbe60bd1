"""The runner: keeps the read models up to date, one batch and one transaction after the other.

Rows, checkpoint, failures and figures of a batch commit together, under the lock of the build's row and on the
condition that the build is still ours. So a runner may die anywhere: what it did is there as a whole, or not at all.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Final

import structlog
from django.db import Error, connection

from outbox.events import Event
from outbox.ordered import END, OrderedRead, default_per_lane, ordered_read
from outbox.sequencing import Sequencer
from outbox.subscribers import Deadline
from projections.applying import Aggregate, Failed, events_apply, those_through
from projections.builds import (
    HeldBuild,
    Progress,
    build_claim,
    build_fenced,
    build_mark,
    build_move,
    build_release,
    build_start,
    builds_ensure,
)
from projections.conf import projection_settings
from projections.errors import ErrorClass, LeaseLost, UnknownProjection
from projections.failures import failures_record
from projections.measuring import batch_measure
from projections.models import Build
from projections.projection import Projection
from projections.registry import projection_named
from projections.retries import retries_serve

log = structlog.get_logger(__name__)

CRASHES: Final = 3
CRASHED: Final = ("worker_died", "Workers died while they applied this event.")

# Those of a batch's aggregates that wait on a detour.
WAITING_SQL: Final = """
SELECT d.aggregate_type, d.aggregate_id
  FROM unnest(%(types)s::text[], %(ids)s::text[]) AS k (aggregate_type, aggregate_id)
  JOIN projections_detour d
    ON d.build_id = %(build)s AND d.aggregate_type = k.aggregate_type AND d.aggregate_id = k.aggregate_id
"""


class BuildRunner:
    """Keeps one build up to date, while it holds it; of one thread.

    Args:
        projection: whose build it is.
        build_id: of the build.
        owner: name of this runner, different from all others; None takes that of this thread, so that what an error
            made it forget is its own again at once.
    """

    def __init__(self, projection: Projection, build_id: int, *, owner: str | None = None) -> None:
        config = projection_settings()
        self.projection = projection
        self.build_id = build_id
        self._batch = projection.batch_size or config.batch_size
        self._seconds = config.lease_seconds
        self._owner = owner or _own_name()
        self._held: HeldBuild | None = None
        self._per_lane = default_per_lane(self._batch)
        self._session: object = None

    @property
    def held(self) -> HeldBuild | None:
        """The build as it is held, or None."""
        return self._held

    def claim(self) -> bool:
        """Claim the build; False if somebody else has it."""
        self._held = build_claim(self.projection, self.build_id, owner=self._owner, seconds=self._seconds)
        if self._held is None:
            return False
        if self._held.strikes:
            # The batch that a worker died of began here, and had no more than so many.
            self._held.careful = self._batch
        return True

    def release(self) -> None:
        """Give the build back."""
        if self._held is not None:
            held, self._held = self._held, None
            build_release(held)
            build_mark(held, is_last=True)

    def step(self, *, upto: int = END) -> int:
        """Serve what is due, apply one batch; how much was done.

        Args:
            upto: the last position to apply.

        Raises:
            LeaseLost: somebody else has claimed the build; nothing of the batch was kept.
            django.db.Error: the database is in trouble; nothing of the batch was kept.
        """
        held = self._held
        if held is None:
            raise LeaseLost("The build was never claimed.")
        try:
            self._prepare_session()
            done = retries_serve(held, batch=self._batch, seconds=self._seconds) if held.detours else 0
            done += self._next(held, upto)
            if not connection.in_atomic_block:
                build_mark(held)
            return done
        except BaseException:
            # What is in memory may differ from what was committed.
            self._held = None
            raise

    def _next(self, held: HeldBuild, upto: int) -> int:
        limit = max(1, self._batch >> min(2 * held.strikes, 30))
        read = batch_apply(held, limit=limit, per_lane=min(limit, self._per_lane), seconds=self._seconds, upto=upto)
        # A hot aggregate fills its lane alone: more places of a lane at a time, until that was enough.
        self._per_lane = min(self._batch, self._per_lane * 2) if read.crowded else default_per_lane(self._batch)
        return read.places

    def _prepare_session(self) -> None:
        if connection.connection is None or connection.connection is not self._session:
            # Plans of wide reads look costly enough to be compiled, which takes longer than to run them.
            with connection.cursor() as cursor:
                cursor.execute("SET jit = off")
            self._session = connection.connection


def batch_apply(
    held: HeldBuild, *, limit: int, seconds: float, per_lane: int | None = None, upto: int = END
) -> OrderedRead:
    """Apply the next events and move the checkpoint, in one transaction or a savepoint of the current one.

    Args:
        held: the build; its checkpoint is moved here as well.
        limit: positions at most.
        seconds: length of the lease, which this renews.
        per_lane: places of one lane at a time.
        upto: the last position to apply.

    Raises:
        LeaseLost: somebody else has claimed the build; nothing of the batch was kept.
        django.db.Error: the database is in trouble; nothing of the batch was kept.
    """
    projection = held.projection
    read = ordered_read(after=held.cursor, limit=limit, topics=projection.topics, per_lane=per_lane, upto=upto)
    if read.reached == held.cursor:
        return read
    calm = held.careful <= read.places or read.places < limit
    kills = _kills(held, read)
    began = time.monotonic()
    with build_fenced(held, seconds=seconds):
        events = _unblocked(held, read.events) if held.detours else read.events
        if kills and events:
            failures = [Failed(events[0], ErrorClass.POISON, *CRASHED)]
        else:
            failures = events_apply(projection, held.id, events) if events else []
        through = those_through(events, failures)
        manual = failures_record(projection, held.id, failures)
        last = read.events[-1] if read.events else None
        progress = Progress(
            read.reached,
            len(through),
            len(failures),
            last.id if last else None,
            last.type if last else None,
            calm=calm,
        )
        build_move(held, progress, seconds=seconds)
        if events:
            batch_measure(held.id, events=len(through), failures=len(failures), seconds=time.monotonic() - began)
    held.cursor = read.reached
    held.detours = held.detours or bool(failures)
    held.careful = 0 if calm else held.careful - read.places
    held.strikes = 0 if calm else held.strikes
    if failures:
        log.warning(
            "projection_events_failed", projection=projection.name, build=held.id, failed=len(failures), manual=manual
        )
    return read


def aggregates_waiting(build_id: int, aggregates: set[Aggregate]) -> set[Aggregate]:
    """Those of the aggregates whose events wait behind one that failed."""
    if not aggregates:
        return set()
    ordered = sorted(aggregates)
    values: dict[str, Any] = {
        "build": build_id,
        "types": [one[0] for one in ordered],
        "ids": [one[1] for one in ordered],
    }
    with connection.cursor() as cursor:
        cursor.execute(WAITING_SQL, values)
        return {(row[0], row[1]) for row in cursor.fetchall()}


def _kills(held: HeldBuild, read: OrderedRead) -> bool:
    """Whether the one event that was read has cost too many workers their life; counted before it is tried again."""
    if not held.strikes or len(read.events) != 1:
        return False
    started = build_start(held)
    if started == 0:
        raise LeaseLost(LeaseLost.__doc__)
    return started > CRASHES


def _unblocked(held: HeldBuild, events: list[Event]) -> list[Event]:
    waiting = aggregates_waiting(held.id, {event.aggregate for event in events})
    return [event for event in events if event.aggregate not in waiting]


class _Thread(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.sequencer = Sequencer()
        self.pid = 0
        self.name = ""


_thread: Final = _Thread()


def _own_name() -> str:
    # A forked child is somebody else.
    if _thread.pid != os.getpid():
        _thread.pid = os.getpid()
        _thread.name = f"{socket.gethostname()[:50]}:{os.getpid()}:{secrets.token_hex(4)}"
    return _thread.name


def projections_run_once(*, seconds: float = 5.0, only: str | None = None) -> int:
    """Apply what waits to all builds, batch by batch in turn, until nothing is left that could be applied now.

    The one function for all who run: the relay's companion thread, Celery's beat, commands and tests.

    Args:
        seconds: begin nothing new after that long.
        only: name of the one projection to serve; None serves all.

    Returns:
        Positions that are done with.

    Raises:
        django.db.Error: the database is in trouble; what was applied is committed.
    """
    deadline = Deadline.after(seconds)
    _thread.sequencer.sequence_once()
    runners = [_runner(build) for build in builds_ensure() if only in (None, build.projection)]
    active = [runner for runner in runners if runner is not None and runner.claim()]
    done, trouble = 0, None
    try:
        while active and deadline.remaining():
            for runner in list(active):
                try:
                    count = runner.step()
                except LeaseLost:
                    log.warning("projection_lease_lost", projection=runner.projection.name, build=runner.build_id)
                    active.remove(runner)
                except Error as exc:
                    log.warning("projection_batch_lost", projection=runner.projection.name, error=type(exc).__name__)
                    active.remove(runner)
                    trouble = exc
                else:
                    done += count
                    if not count:
                        active.remove(runner)
                        runner.release()
            _thread.sequencer.sequence_once()
    finally:
        with suppress(Error):
            for runner in active:
                runner.release()
    if trouble is not None:
        raise trouble
    if done:
        log.info("projections_applied", positions=done)
    return done


def _runner(build: Build) -> BuildRunner | None:
    try:
        return BuildRunner(projection_named(build.projection, build.version), build.pk)
    except UnknownProjection:
        return None
