"""The life of a thing as JSON."""

from __future__ import annotations

from typing import Any

from operations.life.finding import Life
from operations.life.sources import Entry, LifeSource, Subject


def life_document(life: Life) -> dict[str, Any]:
    """All of it, with what was left out."""
    return {
        "subject": _subject(life.subject),
        "others": [_subject(one) for one in life.others],
        "sections": [
            {
                "name": section.source.name,
                "title": section.source.title,
                "entries": len(section.entries),
                "more": section.more,
                "hidden": section.is_hidden,
            }
            for section in life.sections
        ],
        "entries": [_entry(*one) for one in life.entries],
    }


def _subject(subject: Subject) -> dict[str, Any]:
    return {
        "kind": subject.name.kind,
        "value": subject.name.value,
        "title": subject.title,
        "also": sorted(str(name) for name in subject.others),
    }


def _entry(source: LifeSource, entry: Entry) -> dict[str, Any]:
    return {
        "section": source.name,
        "kind": entry.kind,
        "id": entry.id,
        "what": entry.what,
        "at": entry.at,
        "ended_at": entry.ended_at,
        "seconds": entry.seconds,
        "state": entry.state or None,
        "attempts": entry.attempts,
        "text": entry.text or None,
        "about": [str(name) for name in entry.about],
        "data": entry.data,
    }
