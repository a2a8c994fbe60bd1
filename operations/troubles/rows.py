"""What sources whose troubles are rows with a numeric id and a fingerprint have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from django.db.models import Model, QuerySet

M = TypeVar("M", bound=Model)


def ids_as_numbers(texts: Sequence[str]) -> list[int]:
    """Ids as numbers; what cannot be one names nothing."""
    return [int(one) for one in texts if one.isascii() and one.isdigit() and len(one) < 19]


def hours_of(ago: Sequence[int] | None) -> tuple[int, ...]:
    """How many began in each of the last 24 hours, the oldest first, from how many hours ago each began."""
    counts = [0] * 24
    for one in ago or ():
        counts[23 - min(23, max(0, one))] += 1
    return tuple(counts)


def rows_wanted(
    rows: QuerySet[M, Any], *, fingerprint: str | None, ids: Sequence[str] | None, after: str
) -> QuerySet[M, Any]:
    """The rows that ``TroubleSource.troubles`` is asked for, newest first.

    Args:
        rows: all that are troubles.
        fingerprint: of the only group; None for all.
        ids: the only ones; None for all.
        after: the id after which to go on; empty to begin with the newest.
    """
    if fingerprint is not None:
        rows = rows.filter(fingerprint=fingerprint)
    if ids is not None:
        rows = rows.filter(pk__in=ids_as_numbers(ids))
    if after:
        rows = rows.filter(pk__lt=next(iter(ids_as_numbers([after])), 0))
    return rows.order_by("-pk")
