"""Pages of the list of customers, by keyset: as fast at the millionth row as at the first, and stable meanwhile.

A page begins after the last row that the client saw, not after a number of rows, so rows that come or go meanwhile
neither repeat nor hide another (after Markus Winand, "We need tool support for keyset pagination").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.core import signing
from django.db.models import DateTimeField, F, Func, QuerySet, TextField, UUIDField, Value
from django.db.models.lookups import GreaterThan, LessThan

from customers.errors import InvalidQuery
from customers.models import Customer
from customers.models.customer import name_key
from operations.errors import FieldError

SIZE: Final = 50
SIZE_LARGEST: Final = 200
ORDERINGS: Final = ("-created_at", "created_at", "updated_at", "-updated_at", "name", "-name")
_SALT: Final = "customers.api.cursor"


@dataclass(frozen=True, slots=True)
class Page:
    """Some customers in order, and the cursors of the pages beside them (None: there is none)."""

    customers: Sequence[Customer]
    next: str | None
    previous: str | None


@dataclass(frozen=True, slots=True)
class _Cursor:
    """A place between two rows: the key and id of the row on one side, and which way to go from it."""

    backwards: bool
    key: Any
    id: UUID


def page_of(customers: QuerySet[Customer], *, ordering: str, cursor: str | None, size: int) -> Page:
    """The page of ``customers`` that ``cursor`` points at.

    Each ordering is an index of (key, id), read in one range from the cursor on.

    Args:
        ordering: one of ``ORDERINGS``.
        cursor: as an earlier page gave it; None begins at the start.
        size: rows at most.

    Raises:
        InvalidQuery: the cursor is not one of ours, or belongs to another ordering.
    """
    place = None if cursor is None else _parsed(cursor, ordering)
    backwards = place is not None and place.backwards
    descending = ordering.startswith("-") != backwards
    key = _key(ordering)
    rows = customers.annotate(page_key=key)
    if place is not None:
        column: TextField[Any, Any] | DateTimeField[Any, Any] = TextField() if "name" in ordering else DateTimeField()
        here = _Row(Value(place.key, column), Value(place.id, UUIDField()))
        rows = rows.filter((LessThan if descending else GreaterThan)(_Row(key, F("id")), here))
    order = [key, F("id")]
    rows = rows.order_by(*(part.desc() if descending else part.asc() for part in order))
    # One row more than the page tells whether the reading goes on.
    found = list(rows[: size + 1])
    more = len(found) > size
    found = found[:size]
    if backwards:
        found.reverse()
    has_next, has_previous = (place is not None, more) if backwards else (more, place is not None)
    return Page(
        customers=found,
        next=_cursor_text(ordering, found[-1], backwards=False) if found and has_next else None,
        previous=_cursor_text(ordering, found[0], backwards=True) if found and has_previous else None,
    )


class _Row(Func):
    """A row value; PostgreSQL compares such from left to right, and by one range of an index."""

    function = "ROW"
    output_field = TextField()


def _key(ordering: str) -> Any:
    name = ordering.removeprefix("-")
    return name_key() if name == "name" else F(name)


def _cursor_text(ordering: str, customer: Customer, *, backwards: bool) -> str:
    key = customer.page_key  # type: ignore[attr-defined]
    text = key.isoformat() if isinstance(key, datetime) else key
    return signing.dumps([ordering, backwards, text, customer.pk.hex], salt=_SALT)


def _parsed(text: str, ordering: str) -> _Cursor:
    # Signed, so whatever is not literally one of ours is refused before anything is made of it.
    try:
        wanted, backwards, key, row = signing.loads(text, salt=_SALT)
    except signing.BadSignature as exc:
        raise _refused("This is no cursor of this list.") from exc
    if wanted != ordering:
        raise _refused("This cursor belongs to another ordering.")
    return _Cursor(backwards, key if "name" in ordering else datetime.fromisoformat(key), UUID(row))


def _refused(detail: str) -> InvalidQuery:
    return InvalidQuery([FieldError(code="invalid_cursor", detail=detail, parameter="cursor")])
