"""Builds: made when a projection first appears, claimed by runners, and moved on under their row's lock.

The lease tells other runners to leave a build alone, and a lease that was not given back tells that a worker died.
What protects the rows is the epoch, read under the lock of the build's row: a runner that was suspended and comes back
after another one claimed the build finds another epoch and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.db import IntegrityError, connection, transaction

from dbresilience.sqlstate import sqlstate_of
from projections.beginning import LogMoves, LogNotWhole, NeedsOwnTransaction, build_begin
from projections.errors import LeaseLost
from projections.models import Build, BuildState
from projections.models.build import FED
from projections.projection import Batch, Projection
from projections.registry import projection_named, projection_names
from projections.tables import tables_make, views_point

log = structlog.get_logger(__name__)

# Any number that nobody else locks in this database.
LOCK_KEY: Final = 7_203_411_580_364_202
MARK_SECONDS: Final = 1.0

# SKIP LOCKED: a build whose row is locked is being worked on, whatever its lease says. A build that is taken from
# somebody who did not give it back gets a strike: that worker died or was suspended, perhaps of the next event.
CLAIM_SQL: Final = """
WITH free AS (
  SELECT id FROM projections_build
   WHERE id = %(build)s AND state <> 'retired' AND (lease_until < clock_timestamp() OR owner IN ('', %(owner)s))
     FOR UPDATE SKIP LOCKED
)
UPDATE projections_build AS b
   SET owner = %(owner)s, epoch = b.epoch + 1, lease_until = clock_timestamp() + %(seconds)s * interval '1 second',
       seen_at = clock_timestamp(),
       strikes = least(b.strikes + CASE WHEN b.owner IN ('', %(owner)s) THEN 0 ELSE 1 END, 100)
  FROM free WHERE b.id = free.id
RETURNING b.epoch, b.cursor, b.strikes, EXISTS (SELECT FROM projections_detour d WHERE d.build_id = b.id)
"""
RELEASE_SQL: Final = """
UPDATE projections_build SET owner = '', lease_until = clock_timestamp() WHERE id = %(build)s AND epoch = %(epoch)s
"""
# The fence: the row is locked until the transaction ends, so rows and checkpoint change together or not at all. A
# worker that is suspended with the lock in its hands is cut off by the server.
FENCE_SQL: Final = """
SELECT cursor, EXISTS (SELECT FROM projections_detour d WHERE d.build_id = b.id),
       set_config('idle_in_transaction_session_timeout', %(idle)s, true)
  FROM projections_build b WHERE id = %(build)s AND epoch = %(epoch)s AND state <> 'retired' FOR UPDATE
"""
# Moves the checkpoint under the fence's lock, and renews the lease on the way.
MOVE_SQL: Final = """
UPDATE projections_build
   SET cursor = %(cursor)s, events_processed = events_processed + %(events)s,
       failures_seen = failures_seen + %(failures)s, checkpoint_at = clock_timestamp(), seen_at = clock_timestamp(),
       last_event_id = COALESCE(%(event_id)s, last_event_id),
       last_event_type = COALESCE(%(event_type)s, last_event_type),
       strikes = CASE WHEN %(calm)s THEN 0 ELSE strikes END, attempts = CASE WHEN %(moved)s THEN 0 ELSE attempts END,
       lease_until = clock_timestamp() + %(seconds)s * interval '1 second'
 WHERE id = %(build)s
"""
# The history behind the moment at which an event took effect: at most one row each second in which the build moved.
# Written after the commit, so that no moment is early.
MARK_SQL: Final = """
INSERT INTO projections_mark (build_id, position, passed_at)
SELECT id, cursor, clock_timestamp() FROM projections_build WHERE id = %(build)s AND cursor > 0
ON CONFLICT DO NOTHING
"""
# Work that has cost workers their life is counted before it starts, in a transaction of its own.
START_SQL: Final = """
UPDATE projections_build SET attempts = attempts + 1 WHERE id = %(build)s AND epoch = %(epoch)s RETURNING attempts
"""


@dataclass(slots=True)
class HeldBuild:
    """A build that this runner holds.

    Attributes:
        id: of the build.
        projection: whose it is.
        epoch: of our claim.
        cursor: the last position that is done with, as the database has it.
        strikes: leases on it that ended badly, until the place where that happened was passed.
        detours: whether aggregates of it were on a detour when its row was locked last. Only its holder makes detours.
        careful: positions that are still to be read in small steps before that place is passed for sure.
        marked: the position of the last mark that we made.
        marked_at: when that was, by the monotonic clock.
    """

    id: int
    projection: Projection
    epoch: int
    cursor: int
    strikes: int
    detours: bool = True
    careful: int = 0
    marked: int = -1
    marked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the checkpoint goes.

    Attributes:
        cursor: its new place.
        events: how many events took effect.
        failures: how many attempts failed.
        event_id: of the last event, or None to keep what stands there.
        event_type: its type.
        calm: whether the strikes are over.
    """

    cursor: int
    events: int
    failures: int
    event_id: int | None = None
    event_type: str | None = None
    calm: bool = False


def builds_ensure() -> list[Build]:
    """Make the first build of each projection that has none, seen by readers at once.

    Returns:
        The builds that are to be kept up to date and whose version is listed, oldest first.
    """
    builds = _fed()
    missing = set(projection_names()) - {build.projection for build in builds if build.state == BuildState.LIVE}
    if missing:
        for name in sorted(missing):
            _make_first(projection_named(name))
        builds = _fed()
    return builds


def build_make(projection: Projection, state: BuildState, begins: int | None = None) -> Build:
    """Make a build, in the current transaction.

    Args:
        projection: whose.
        state: what it is for.
        begins: its first checkpoint, as ``build_begin`` gives it: None for an empty build before the first event.
    """
    build = Build.objects.create(
        projection=projection.name, version=projection.version, state=state, cursor=begins or 0
    )
    tables_make(projection, build.pk)
    if begins is not None:
        projection.bootstrap(Batch((), build.pk))
    if state is BuildState.LIVE:
        views_point(projection, build.pk)
    log.info("build_made", projection=projection.name, version=projection.version, build=build.pk, state=state.value)
    return build


def build_claim(projection: Projection, build_id: int, *, owner: str, seconds: float) -> HeldBuild | None:
    """Claim a build; None if somebody else has it."""
    with connection.cursor() as cursor:
        cursor.execute(CLAIM_SQL, {"build": build_id, "owner": owner, "seconds": seconds})
        row = cursor.fetchone()
    if row is None:
        return None
    held = HeldBuild(build_id, projection, *row)
    # Whoever had it before has marked this place.
    held.marked = held.cursor
    return held


def build_release(held: HeldBuild) -> None:
    """Give a build back."""
    with connection.cursor() as cursor:
        cursor.execute(RELEASE_SQL, {"build": held.id, "epoch": held.epoch})


@contextmanager
def build_fenced(held: HeldBuild, *, seconds: float) -> Iterator[None]:
    """A transaction, or a savepoint of the current one, in which the build's row is locked and surely ours.

    Args:
        held: the build.
        seconds: the session may not idle longer than that meanwhile.

    Raises:
        LeaseLost: somebody else has claimed it, or moved it on.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(FENCE_SQL, {"build": held.id, "epoch": held.epoch, "idle": str(int(seconds * 1000))})
            row = cursor.fetchone()
        if row is None or row[0] != held.cursor:
            raise LeaseLost(LeaseLost.__doc__)
        held.detours = row[1]
        yield


def build_move(held: HeldBuild, progress: Progress, *, seconds: float) -> None:
    """Move the checkpoint; within ``build_fenced``."""
    values: dict[str, Any] = {
        "build": held.id,
        "cursor": progress.cursor,
        "events": progress.events,
        "failures": progress.failures,
        "event_id": progress.event_id,
        "event_type": progress.event_type,
        "moved": progress.cursor > held.cursor,
        "calm": progress.calm,
        "seconds": seconds,
    }
    with connection.cursor() as cursor:
        cursor.execute(MOVE_SQL, values)


def build_mark(held: HeldBuild, *, is_last: bool = False) -> None:
    """Note that the build has come so far, if it has moved; at most once a second, or when we leave it."""
    now = time.monotonic()
    if held.cursor == held.marked or not (is_last or now - held.marked_at >= MARK_SECONDS):
        return
    with connection.cursor() as cursor:
        cursor.execute(MARK_SQL, {"build": held.id})
    held.marked, held.marked_at = held.cursor, now


def build_start(held: HeldBuild) -> int:
    """Count a start of work on the next event alone; 0 if the build is no longer ours."""
    with connection.cursor() as cursor:
        cursor.execute(START_SQL, {"build": held.id, "epoch": held.epoch})
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def _fed() -> list[Build]:
    return list(Build.objects.filter(state__in=FED, projection__in=projection_names()).order_by("pk"))


def _make_first(projection: Projection) -> None:
    """Make the first build of a projection, unless another process has just done so."""

    def work(begins: int | None) -> None:
        if not Build.objects.filter(projection=projection.name, state=BuildState.LIVE).exists():
            build_make(projection, BuildState.LIVE, begins)

    try:
        build_begin(projection, work)
    except (LogNotWhole, LogMoves, NeedsOwnTransaction) as exc:
        # The others go on; health says that this one was not built.
        log.error("build_not_made", projection=projection.name, reason=exc.detail)
    except IntegrityError as exc:
        # Of two that begin at once one is kept; the other one's tables went with its transaction.
        if sqlstate_of(exc) != "23505":
            raise
