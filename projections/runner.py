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
from typing import Final

import structlog
from django.db import Error, connection

from outbox.ordered import END, OrderedRead, default_per_lane
from outbox.sequencing import Sequencer
from outbox.subscribers import Deadline
from projections.batches import batch_apply
from projections.builds import HeldBuild, build_claim, build_mark, build_release, builds_ensure
from projections.conf import projection_settings
from projections.errors import LeaseLost, UnknownProjection
from projections.log_reader import LogReader, Stretch, session_prepare
from projections.models import Build
from projections.projection import Projection
from projections.registry import projection_named
from projections.retries import retries_serve

log = structlog.get_logger(__name__)

GROWTH: Final = 4
"""Batches of a build that is far behind grow to that many times PROJECTIONS_BATCH_SIZE: what a batch costs beside its
events, and the wait for the disk at its end, is shared by more of them."""

SWIFT: Final = 0.05
"""Only a batch that took no longer than that share of the lease is followed by a larger one."""


class BuildRunner:
    """Keeps one build up to date, while it holds it; of one thread.

    Args:
        projection: whose build it is.
        build_id: of the build.
        owner: name of this runner, different from all others; None takes that of this thread, so that what an error
            made it forget is its own again at once.
        reader: reads the log, for several runners of this thread; None reads for each step alone.
    """

    def __init__(
        self, projection: Projection, build_id: int, *, owner: str | None = None, reader: LogReader | None = None
    ) -> None:
        config = projection_settings()
        self.projection = projection
        self.build_id = build_id
        self._least = projection.batch_size or config.batch_size
        self._most = projection.batch_size or config.batch_size * GROWTH
        self._limit = self._least
        self._crowding = 1
        self._took = 0.0
        self._seconds = config.lease_seconds
        self._owner = owner or _own_name()
        self._held: HeldBuild | None = None
        self._reader = reader

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
            self._held.careful = self._most
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
            session_prepare()
            done = retries_serve(held, batch=self._least, seconds=self._seconds) if held.detours else 0
            done += self._next(held, upto)
            if not connection.in_atomic_block:
                build_mark(held)
            return done
        except BaseException:
            # What is in memory may differ from what was committed.
            self._held = None
            raise

    def _next(self, held: HeldBuild, upto: int) -> int:
        limit = max(1, self._most >> min(2 * held.strikes, 30)) if held.strikes else self._limit
        stretch = Stretch(self.projection.topics, held.cursor, limit, self._per_lane(limit), upto)
        reader = self._reader or LogReader([self.projection])
        read = reader.read(stretch)
        self._adapt(read, limit)
        if self._reader is not None and not held.strikes and stretch.is_read_by(read):
            reader.begin(stretch.following(read, self._limit, self._per_lane(self._limit)))
        began = time.monotonic()
        batch_apply(held, read, limit=limit, seconds=self._seconds)
        self._took = time.monotonic() - began
        return read.places

    def _adapt(self, read: OrderedRead, limit: int) -> None:
        # A hot aggregate fills its lane alone: more places of a lane at a time, until that was enough.
        self._crowding = self._crowding * 2 if read.crowded else 1
        behind = read.places >= limit or read.crowded
        swift = self._took <= self._seconds * SWIFT
        self._limit = min(self._most, self._limit * 2) if behind and swift else self._least

    def _per_lane(self, limit: int) -> int:
        return min(limit, default_per_lane(limit) * self._crowding)


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
    builds = [build for build in builds_ensure() if only in (None, build.projection)]
    known = [(build.pk, projection) for build in builds if (projection := _listed(build)) is not None]
    reader = LogReader(projection for _, projection in known)
    runners = [BuildRunner(projection, pk, reader=reader) for pk, projection in known]
    active = [runner for runner in runners if runner.claim()]
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
            reader.turn()
    finally:
        reader.close()
        with suppress(Error):
            for runner in active:
                runner.release()
    if trouble is not None:
        raise trouble
    if done:
        log.info("projections_applied", positions=done)
    return done


def _listed(build: Build) -> Projection | None:
    try:
        return projection_named(build.projection, build.version)
    except UnknownProjection:
        return None
