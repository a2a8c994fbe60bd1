"""What people do about troubles: look, have them tried again, write down who looks after them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from django.db.models.functions import Now

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from operations.errors import FieldError
from operations.models import TroubleNote
from operations.troubles.errors import UnknownSource
from operations.troubles.sources import (
    RETRIED_AT_ONCE,
    Trouble,
    TroubleGroup,
    TroubleSource,
    source_named,
    sources,
)

FINGERPRINT_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class NotedGroup:
    """A group of troubles, its source, and what people wrote about it, if anything."""

    source: TroubleSource
    group: TroubleGroup
    note: TroubleNote | None

    def is_snoozed(self, now: dt.datetime) -> bool:
        """Whether nobody wants to be told of it before some later moment."""
        return self.note is not None and self.note.snoozed_until is not None and self.note.snoozed_until > now


def source_of(name: str, *, pointer: str = "/source", parameter: str = "") -> TroubleSource:
    """The source of that name.

    Raises:
        UnknownSource: there is none.
    """
    if (found := source_named(name)) is None:
        detail = f"One of: {', '.join(source.name for source in sources()) or 'none'}."
        error = FieldError(
            pointer="" if parameter else pointer, code="invalid_value", detail=detail, parameter=parameter
        )
        raise UnknownSource(errors=[error])
    return found


def troubles_groups(chosen: Iterable[TroubleSource], *, fingerprint: str | None = None) -> list[NotedGroup]:
    """The groups of these sources, those seen last first, with their notes."""
    found = [(source, group) for source in chosen for group in source.groups(fingerprint=fingerprint)]
    notes = {
        (note.source, note.fingerprint): note
        for note in TroubleNote.objects.filter(
            source__in={source.name for source, _ in found}, fingerprint__in={group.fingerprint for _, group in found}
        )
    }
    noted = [NotedGroup(source, group, notes.get((source.name, group.fingerprint))) for source, group in found]
    return sorted(noted, key=lambda one: one.group.last_seen, reverse=True)


def troubles_page(
    chosen: Sequence[TroubleSource], *, fingerprint: str | None, place: tuple[str, str], limit: int
) -> tuple[list[tuple[TroubleSource, Trouble]], tuple[str, str] | None]:
    """Troubles of one source after the other.

    Args:
        chosen: the sources, in order.
        fingerprint: only of this group.
        place: source and id of the trouble before the first one; two empty strings begin at the start.
        limit: how many.

    Returns:
        The troubles, and the place of the next page, or None after the last.
    """
    source_name, after = place
    found: list[tuple[TroubleSource, Trouble]] = []
    for source in chosen:
        if source.name < source_name:
            continue
        since = after if source.name == source_name else ""
        # One more than the page tells whether there is another.
        rows = source.troubles(fingerprint=fingerprint, after=since, limit=limit + 1 - len(found))
        found += [(source, trouble) for trouble in rows]
        if len(found) > limit:
            last_source, last = found[limit - 1]
            return found[:limit], (last_source.name, last.id)
    return found, None


def troubles_retry(
    *,
    source: TroubleSource,
    actor: str,
    reason: str,
    ids: Sequence[str] | None = None,
    fingerprint: str | None = None,
) -> list[str]:
    """Have troubles tried again: those named, or the newest thousand of a group.

    Returns:
        Ids of those that will be tried again.
    """
    if ids is None:
        rows = source.troubles(fingerprint=fingerprint, limit=RETRIED_AT_ONCE)
        ids = [trouble.id for trouble in rows]
    if not ids:
        return []

    def work() -> list[str]:
        return list(source.retry(ids=ids, actor=actor, reason=reason))

    return run_in_transaction(work)


def trouble_note(
    *,
    source: TroubleSource,
    fingerprint: str,
    actor: str,
    owner: str = "",
    note: str = "",
    snoozed_until: dt.datetime | None = None,
) -> TroubleNote:
    """Write down who looks after a group, what is known of it, until when it is snoozed; replaces what was there."""

    def work() -> TroubleNote:
        values = {"owner": owner[:200], "note": note, "snoozed_until": snoozed_until, "updated_by": actor[:200]}
        row, _ = TroubleNote.objects.update_or_create(
            source=source.name, fingerprint=fingerprint, defaults={**values, "updated_at": Now()}
        )
        audit_record(
            actor=actor,
            action="trouble.noted",
            target=f"trouble:{source.name}:{fingerprint}",
            detail={"owner": owner, "snoozed_until": snoozed_until.isoformat() if snoozed_until else None},
        )
        row.refresh_from_db()
        return row

    return run_in_transaction(work)
