"""The tiles on the console's first page: the registry that apps contribute to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from django.db import Error, transaction
from django.http import HttpRequest

Tone = Literal["plain", "good", "warn", "bad"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of a tile.

    Attributes:
        label: what is counted.
        value: as shown.
        tone: whether that is good or bad.
        url: the list that shows what was counted.
    """

    label: str
    value: str | int
    tone: Tone = "plain"
    url: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: a title and its figures; None where they could not be read."""

    title: str
    figures: Sequence[Figure] | None


@dataclass(frozen=True, slots=True)
class _Source:
    title: str
    function: Callable[[HttpRequest], Sequence[Figure]]
    permission: str
    order: int


_sources: Final[dict[str, _Source]] = {}


def register(
    title: str, function: Callable[[HttpRequest], Sequence[Figure]], *, permission: str = "", order: int = 100
) -> None:
    """Add a tile; an app does so in ``ready()``.

    Args:
        title: heading of the tile; the same title again replaces it.
        function: returns the figures. Its queries are bounded: this page must open in no time on millions of rows.
        permission: as ``customers.view_customer``; without it the tile is not shown.
        order: smaller comes first.
    """
    _sources[title] = _Source(title, function, permission, order)


def tiles(request: HttpRequest) -> list[Tile]:
    """The tiles that the person may see. A tile that fails is shown as unavailable instead of taking the page down."""
    found = []
    for source in sorted(_sources.values(), key=lambda source: (source.order, source.title)):
        if source.permission and not request.user.has_perm(source.permission):
            continue
        try:
            with transaction.atomic():
                figures: Sequence[Figure] | None = source.function(request)
        except Error:
            log.exception("tile_failed", tile=source.title)
            figures = None
        found.append(Tile(source.title, figures))
    return found
