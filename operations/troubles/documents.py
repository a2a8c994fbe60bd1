"""Troubles as JSON: the same for API and command."""

from __future__ import annotations

from typing import Any

from operations.troubles.services import NotedGroup
from operations.troubles.sources import COUNTED_AT_MOST, Trouble, TroubleSource


def trouble_document(source: TroubleSource, trouble: Trouble) -> dict[str, Any]:
    """One trouble."""
    return {
        "source": source.name,
        "id": trouble.id,
        "group": trouble.group,
        "state": trouble.state,
        "about": trouble.about,
        "code": trouble.code,
        "message": trouble.message,
        "since": trouble.since,
    }


def group_document(one: NotedGroup) -> dict[str, Any]:
    """One group and its note."""
    group, note = one.group, one.note
    return {
        "source": one.source.name,
        "group": group.fingerprint,
        "title": group.title,
        "count": group.count,
        "is_counted_in_full": group.count < COUNTED_AT_MOST,
        "first_seen": group.first_seen,
        "last_seen": group.last_seen,
        "code": group.code,
        "message": group.message,
        "sample_id": group.sample_id,
        "hours": list(group.hours),
        "owner": note.owner if note else "",
        "note": note.note if note else "",
        "snoozed_until": note.snoozed_until if note else None,
    }
