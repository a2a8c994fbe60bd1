"""Rebuild: a new build is filled beside the one that readers see, compared with it, and takes its place.

Readers notice nothing: their view is pointed at other tables in one transaction that holds both checkpoints. The build
that they saw before is kept up to date, for a way back that is as quick, until it is retired.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.db import OperationalError, connection
from django.db.models.functions import Now

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.errors import ProblemError
from outbox.ordered import ordered_read
from outbox.reading import places_between
from projections.batches import batch_apply
from projections.beginning import build_begin
from projections.builds import LOCK_KEY, HeldBuild, build_make, build_release
from projections.models import Build, BuildState
from projections.models.build import FED
from projections.projection import Table
from projections.registry import projection_named
from projections.resetting import build_retire
from projections.tables import tables_drop, views_point

log = structlog.get_logger(__name__)

CLOSE: Final = 20_000
"""Events that may be caught up while both checkpoints are held."""

SWITCH_TRIES: Final = 20
_FREEZE_SECONDS: Final = 30.0
_AT_ONCE: Final = 5_000

# Whoever holds them loses both builds; a batch that is under way is waited for.
SEIZE_SQL: Final = """
UPDATE projections_build
   SET owner = 'comparison', epoch = epoch + 1, lease_until = clock_timestamp() + %(seconds)s * interval '1 second'
 WHERE id = %(build)s RETURNING epoch, cursor
"""
# Both sides as a whole, by key: three counts in one pass.
COMPARE_SQL: Final = """
SELECT count(*) FILTER (WHERE b.here IS NULL), count(*) FILTER (WHERE a.here IS NULL),
       count(*) FILTER (WHERE a.here AND b.here AND ({differs})), count(*) FILTER (WHERE b.here)
  FROM (SELECT *, true AS here FROM "{old}") a
  FULL JOIN (SELECT *, true AS here FROM "{new}") b USING ({key})
"""
COLUMNS_SQL: Final = """
SELECT a.attname FROM pg_attribute a JOIN pg_attribute b ON b.attname = a.attname AND b.atttypid = a.atttypid
 WHERE a.attrelid = %(old)s::regclass AND b.attrelid = %(new)s::regclass
   AND a.attnum > 0 AND b.attnum > 0 AND NOT a.attisdropped AND NOT b.attisdropped ORDER BY a.attnum
"""
# By projections_failure_active_uniq, and for each by the index of its event.
FAILING_SQL: Final = """
SELECT count(*) FROM projections_failure n
 WHERE n.build_id = %(new)s AND n.state IN ('retrying', 'manual')
   AND NOT EXISTS (SELECT FROM projections_failure o
                    WHERE o.event_id = n.event_id AND o.build_id = %(old)s AND o.state IN ('retrying', 'manual'))
"""


class RebuildRunning(ProblemError):
    """A rebuild of this projection is under way. Finish it, or cancel it."""

    status = 409
    code = "rebuild_running"
    title = "Rebuild under way"


class NoSuchBuild(ProblemError):
    """There is no build of this projection in the state that this needs."""

    status = 409
    code = "no_such_build"
    title = "No such build"


class NotCaughtUp(ProblemError):
    """The build that is to be seen has not caught up yet."""

    status = 409
    code = "not_caught_up"
    title = "Not caught up"


@dataclass(frozen=True, slots=True)
class TableComparison:
    """How one table of two builds differs.

    Attributes:
        table: the view's name.
        rows: rows of the new one.
        missing: rows of the old one that the new one does not have.
        added: rows that only the new one has.
        different: rows of both that differ in a column that both have.
    """

    table: str
    rows: int
    missing: int
    added: int
    different: int

    @property
    def is_same(self) -> bool:
        return not (self.missing or self.added or self.different)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two builds at one position of the log.

    Attributes:
        old: the build that readers see.
        new: the one that is to take its place.
        position: of the log.
        tables: table by table.
        failing: events that only the new one cannot apply; aggregates of it wait behind them.
    """

    old: int
    new: int
    position: int
    tables: list[TableComparison]
    failing: int = 0

    @property
    def is_same(self) -> bool:
        return not self.failing and all(table.is_same for table in self.tables)


def rebuild_start(*, name: str, actor: str) -> Build:
    """Begin a new build of the newest version, which runners fill from the beginning of the log.

    Where retention has removed that beginning, it starts from the projection's ``bootstrap``.

    Raises:
        UnknownProjection: there is none of this name.
        RebuildRunning: there is one already.
        NoSuchBuild: nothing has been built yet; the first build needs no rebuild.
        LogNotWhole: the beginning of the log is gone, and the projection cannot do without.
    """
    projection = projection_named(name)

    def begin(begins: int | None) -> Build:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        _build(name, BuildState.LIVE)
        if Build.objects.filter(projection=name, state=BuildState.BUILDING).exists():
            raise RebuildRunning
        build = build_make(projection, BuildState.BUILDING, begins)
        _audit(actor, "started", name, {"build": build.pk, "version": build.version})
        return build

    return build_begin(projection, begin)


def rebuild_cancel(*, name: str, actor: str) -> None:
    """Drop the build that is being filled.

    Raises:
        NoSuchBuild: there is none.
    """
    _drop(name, BuildState.BUILDING, actor, "cancelled")


def rebuild_retire(*, name: str, actor: str) -> None:
    """Drop the build that readers saw before; there is no way back then.

    Raises:
        NoSuchBuild: there is none.
    """
    _drop(name, BuildState.STANDBY, actor, "retired")


def rebuild_lag(name: str) -> int:
    """Positions by which the build that is being filled is behind the one that readers see.

    Raises:
        NoSuchBuild: there is none.
    """
    return max(0, _build(name, BuildState.LIVE).cursor - _build(name, BuildState.BUILDING).cursor)


def rebuild_compare(*, name: str) -> Comparison:
    """Compare the build that is being filled with the one that readers see, at one position of the log.

    Both are taken from their runners and brought to one position; then a snapshot is taken, and the runners go on with
    the next lease while the snapshot is read.

    Raises:
        NoSuchBuild: there is nothing to compare.
        NotCaughtUp: the new one is too far behind.
    """
    old, new = _build(name, BuildState.LIVE), _build(name, BuildState.BUILDING)
    held: list[HeldBuild] = []

    def freeze() -> list[HeldBuild]:
        with connection.cursor() as cursor:
            found = []
            for build in sorted((old, new), key=lambda one: one.pk):
                cursor.execute(SEIZE_SQL, {"build": build.pk, "seconds": _FREEZE_SECONDS})
                epoch, place = cursor.fetchone()
                projection = projection_named(name, build.version)
                found.append(HeldBuild(build.pk, projection, epoch, place, 0))
            _catch_up(min(found, key=lambda one: one.cursor), max(one.cursor for one in found))
        return found

    def look() -> Comparison:
        places = set(Build.objects.filter(pk__in=[old.pk, new.pk]).values_list("cursor", flat=True))
        if len(places) != 1:
            raise NotCaughtUp("They moved apart before they could be compared. Try again.")
        tables = projection_named(name, new.version).tables
        with connection.cursor() as cursor:
            cursor.execute(FAILING_SQL, {"old": old.pk, "new": new.pk})
            failing = cursor.fetchone()[0]
        compared = [_compare(table, old.pk, new.pk) for table in tables]
        return Comparison(old.pk, new.pk, places.pop(), compared, failing)

    held = run_in_transaction(freeze)
    try:
        return run_in_transaction(look, isolation="repeatable read", read_only=True, repeatable=False)
    finally:
        for one in held:
            build_release(one)


def rebuild_switch(*, name: str, actor: str) -> Build:
    """Let readers see the build that was filled; the one that they saw is kept up to date for a way back.

    Raises:
        NoSuchBuild: there is none.
        NotCaughtUp: it is too far behind, so that readers would see the past; or readers that do not end are in the
            way.
    """
    return _switch(name, BuildState.BUILDING, actor, "switched")


def rebuild_rollback(*, name: str, actor: str) -> Build:
    """Let readers see the build that they saw before.

    Raises:
        NoSuchBuild: there is none.
        NotCaughtUp: as in ``rebuild_switch``.
    """
    return _switch(name, BuildState.STANDBY, actor, "rolled_back")


def _switch(name: str, source: BuildState, actor: str, word: str) -> Build:
    def work() -> Build:
        # In the order of their ids, as the comparison locks them.
        builds = list(Build.objects.select_for_update().filter(projection=name, state__in=FED).order_by("pk"))
        old = next((build for build in builds if build.state == BuildState.LIVE), None)
        new = next((build for build in builds if build.state == source), None)
        if old is None or new is None:
            raise NoSuchBuild
        projection = projection_named(name, new.version)
        if new.cursor < old.cursor:
            _catch_up(HeldBuild(new.pk, projection, new.epoch, new.cursor, 0), old.cursor)
        before = next((one for one in builds if one.state == BuildState.STANDBY and one.pk != new.pk), None)
        if before is not None:
            build_retire(before)
            tables_drop(projection_named(name).tables, before.pk)
        views_point(projection, new.pk)
        # One build is live at a time, and one on standby: the new one steps aside while the old one takes its place.
        Build.objects.filter(pk=new.pk).update(state=BuildState.RETIRED)
        Build.objects.filter(pk=old.pk).update(state=BuildState.STANDBY)
        Build.objects.filter(pk=new.pk).update(state=BuildState.LIVE, switched_at=Now())
        _audit(actor, word, name, {"from": old.pk, "to": new.pk, "position": old.cursor})
        new.refresh_from_db()
        return new

    for attempt in range(SWITCH_TRIES):
        try:
            return run_in_transaction(work)
        except OperationalError as exc:
            if getattr(exc.__cause__, "sqlstate", None) != "55P03" or attempt == SWITCH_TRIES - 1:
                raise
            # A long reader of the view; those that came after it are let through before the next try.
            time.sleep(0.05 * (attempt + 1))
    raise NotCaughtUp


def _catch_up(held: HeldBuild, upto: int) -> None:
    """Bring a build whose row is locked to a position, in the current transaction."""
    if upto - held.cursor > CLOSE and places_between(held.cursor, upto, CLOSE + 1) > CLOSE:
        raise NotCaughtUp(f"It is more than {CLOSE} events behind.")
    while held.cursor < upto:
        read = ordered_read(after=held.cursor, limit=_AT_ONCE, topics=held.projection.topics, upto=upto)
        if not read.places:
            return
        batch_apply(held, read, limit=_AT_ONCE, seconds=_FREEZE_SECONDS)


def _compare(table: Table, old: int, new: int) -> TableComparison:
    names = table.of_build(old), table.of_build(new)
    with connection.cursor() as cursor:
        cursor.execute(COLUMNS_SQL, {"old": names[0], "new": names[1]})
        both = [row[0] for row in cursor.fetchall()]
        compared = [column for column in table.columns if column in both]
        differs = " OR ".join(f'a."{column}" IS DISTINCT FROM b."{column}"' for column in compared) or "false"
        key = ", ".join(f'"{column}"' for column in table.key)
        cursor.execute(COMPARE_SQL.format(old=names[0], new=names[1], key=key, differs=differs))
        missing, added, different, rows = cursor.fetchone()
    return TableComparison(table.name, rows, missing, added, different)


def _drop(name: str, state: BuildState, actor: str, word: str) -> None:
    def work() -> None:
        build = Build.objects.select_for_update().filter(projection=name, state=state).first()
        if build is None:
            raise NoSuchBuild
        build_retire(build)
        tables_drop(projection_named(name, build.version).tables, build.pk)
        _audit(actor, word, name, {"build": build.pk})

    projection_named(name)
    run_in_transaction(work)


def _build(name: str, state: BuildState) -> Build:
    projection_named(name)
    build = Build.objects.filter(projection=name, state=state).first()
    if build is None:
        raise NoSuchBuild
    return build


def _audit(actor: str, word: str, name: str, detail: dict[str, Any]) -> None:
    audit_record(actor=actor, action=f"projection_rebuild.{word}", target=f"projection:{name}", detail=detail)
