"""Ids that come as text from outside: what cannot be one names nothing."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID


def uuid_of(text: object) -> UUID | None:
    """The UUID that a text is; None if it is none."""
    try:
        return UUID(str(text))
    except ValueError:
        return None


def uuids_of(texts: Iterable[object]) -> list[UUID]:
    """Those of the texts that are UUIDs."""
    return [found for text in texts if (found := uuid_of(text)) is not None]
