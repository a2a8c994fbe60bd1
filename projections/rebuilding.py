"""Rebuild: a new build is filled beside the one that readers see, compared with it, and takes its place.

Readers notice nothing: their view is pointed at other tables in one transaction that holds both checkpoints. The build
that they saw before is kept up to date, for a way back that is as quick, until it is retired.
"""

from __future__ import annotations

import time
from typing import Any, Final

from django.db import OperationalError, connection
from django.db.models.functions import Now

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.errors import ProblemError
from projections.beginning import build_begin
from projections.builds import LOCK_KEY, HeldBuild, build_make
from projections.catching_up import NotCaughtUp, build_catch_up
from projections.models import Build, BuildState
from projections.models.build import FED
from projections.registry import projection_named
from projections.resetting import build_retire
from projections.tables import tables_drop, views_point

SWITCH_TRIES: Final = 20


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
        build_in(name, BuildState.LIVE)
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
    return max(0, build_in(name, BuildState.LIVE).cursor - build_in(name, BuildState.BUILDING).cursor)


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


def build_in(name: str, state: BuildState) -> Build:
    """The build of a projection that is in a state of which there is one at a time.

    Raises:
        UnknownProjection: there is none of this name.
        NoSuchBuild: there is none.
    """
    projection_named(name)
    build = Build.objects.filter(projection=name, state=state).first()
    if build is None:
        raise NoSuchBuild
    return build


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
            build_catch_up(HeldBuild(new.pk, projection, new.epoch, new.cursor, 0), old.cursor)
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


def _audit(actor: str, word: str, name: str, detail: dict[str, Any]) -> None:
    audit_record(actor=actor, action=f"projection_rebuild.{word}", target=f"projection:{name}", detail=detail)
