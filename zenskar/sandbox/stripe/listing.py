"""Stripe's lists: newest first, cursors that are object ids, at most 100 objects a page."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from zenskar.sandbox.stripe.errors import StripeError, resource_missing
from zenskar.sandbox.stripe.fields import Field, Integer, ListOf, Range, Text
from zenskar.sandbox.stripe.store import Collection

DEFAULT_LIMIT = 10

LIST_FIELDS: dict[str, Field] = {
    "limit": Integer(minimum=1, maximum=100),
    "starting_after": Text(unset=False),
    "ending_before": Text(unset=False),
    "created": Range(),
    "expand": ListOf(),
}


def page_of(
    collection: Collection,
    *,
    kind: str,
    url: str,
    params: dict[str, Any],
    keep: Callable[[dict[str, Any]], bool],
    render: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """The list object that answers ``params``. A cursor may name an object that was deleted meanwhile."""
    after, before = params.get("starting_after"), params.get("ending_before")
    if after and before:
        raise StripeError(400, "You may only specify one of these parameters: starting_after, ending_before.")
    limit = params.get("limit", DEFAULT_LIMIT)
    created = params.get("created")

    def kept(found: dict[str, Any]) -> bool:
        return keep(found) and (created is None or within(found["created"], created))

    if before:
        rows = collection.oldest_first(above=_place(collection, kind, before, "ending_before"))
        data = list(islice(filter(kept, rows), limit + 1))
        has_more, data = len(data) > limit, data[:limit][::-1]
    else:
        below = _place(collection, kind, after, "starting_after") if after else None
        data = list(islice(filter(kept, collection.newest_first(below=below)), limit + 1))
        has_more, data = len(data) > limit, data[:limit]
    return {"object": "list", "data": [render(found) for found in data], "has_more": has_more, "url": url}


def within(moment: int, bounds: dict[str, int]) -> bool:
    """Whether ``moment`` lies in the interval that a Range field parsed."""
    return (
        moment == bounds.get("eq", moment)
        and moment > bounds.get("gt", moment - 1)
        and moment >= bounds.get("gte", moment)
        and moment < bounds.get("lt", moment + 1)
        and moment <= bounds.get("lte", moment)
    )


def _place(collection: Collection, kind: str, id: str, param: str) -> int:
    place = collection.place(id)
    if place is None:
        raise resource_missing(kind, id, param=param, status=400)
    return place
