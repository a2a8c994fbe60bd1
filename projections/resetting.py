"""Reset: an empty read model in place of the one that readers see, filled from the beginning of the log."""

from __future__ import annotations

from typing import Final

import structlog
from django.core import signing
from django.db.models.functions import Now

from operations.audit import audit_record
from operations.errors import FieldError, ProblemError
from projections.beginning import build_begin
from projections.builds import build_make
from projections.models import Build, BuildState, Detour, Failure, FailureState
from projections.models.failure import ACTIVE
from projections.registry import projection_named
from projections.tables import tables_drop

log = structlog.get_logger(__name__)

TOKEN_SECONDS: Final = 300
_SALT: Final = "projections.reset"


class NothingBuilt(ProblemError):
    """Nothing of this projection has been built yet."""

    status = 409
    code = "nothing_built"
    title = "Nothing built"


class ConfirmationRefused(ProblemError):
    """The confirmation token is wrong, too old, of somebody else, or of another state of the projection."""

    status = 409
    code = "confirmation_refused"
    title = "Confirmation refused"


def reset_token(*, name: str, actor: str) -> str:
    """A token that lets the same actor reset the projection as it is now, within five minutes and once.

    Raises:
        UnknownProjection: there is none of this name.
        NothingBuilt: there is nothing to reset.
    """
    return signing.dumps([name, _live(name).pk, actor], salt=_SALT)


def projection_reset(*, name: str, token: str, actor: str) -> Build:
    """Let readers see an empty build at once, which runners fill from the beginning; the old one is dropped.

    Args:
        name: of the projection.
        token: from ``reset_token``. It names the build, and a reset makes another one: so it works once.
        actor: who.

    Raises:
        UnknownProjection: there is none of this name.
        NothingBuilt: there is nothing to reset.
        ConfirmationRefused: as said there.
        LogNotWhole: the beginning of the log is gone, and the projection cannot do without.
    """
    _live(name)
    try:
        named, build_id, holder = signing.loads(token, salt=_SALT, max_age=TOKEN_SECONDS)
    except (signing.BadSignature, ValueError) as exc:
        raise _refused() from exc
    if (named, holder) != (name, actor):
        raise _refused()

    def work(begins: int | None) -> Build:
        old = Build.objects.select_for_update().filter(pk=build_id, state=BuildState.LIVE).first()
        if old is None:
            raise _refused()
        # Before the new one is made: one build is live at a time.
        build_retire(old)
        new = build_make(projection_named(name), BuildState.LIVE, begins)
        tables_drop(projection_named(name).tables, old.pk)
        detail = {"retired": old.pk, "made": new.pk, "cursor": old.cursor}
        audit_record(actor=actor, action="projection.reset", target=f"projection:{name}", detail=detail)
        return new

    return build_begin(projection_named(name), work)


def build_retire(build: Build) -> None:
    """Mark a build as gone; its row must be locked. The caller drops the tables when no view needs them any more."""
    Build.objects.filter(pk=build.pk).update(state=BuildState.RETIRED, retired_at=Now(), owner="")
    Detour.objects.filter(build=build).delete()
    Failure.objects.filter(build=build, state__in=ACTIVE).update(
        state=FailureState.RESOLVED, resolved_at=Now(), next_retry_at=None, resolution="The build was retired."
    )
    log.info("build_retired", projection=build.projection, build=build.pk)


def _live(name: str) -> Build:
    projection_named(name)
    build = Build.objects.filter(projection=name, state=BuildState.LIVE).first()
    if build is None:
        raise NothingBuilt
    return build


def _refused() -> ConfirmationRefused:
    detail = "Ask for a new token, and send it within five minutes."
    pointer = "/confirmation_token"
    return ConfirmationRefused(errors=[FieldError(pointer=pointer, code="invalid_value", detail=detail)])
