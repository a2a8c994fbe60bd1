"""Pages of lists that are ordered by id, by keyset: as fast at the millionth row as at the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from django.core import signing
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.models import Model, QuerySet
from rest_framework import serializers
from rest_framework.request import Request

from operations.serializers import StrictSerializer

SIZE: Final = 50
SIZE_LARGEST: Final = 500
_SALT: Final = "operations.api.cursor"

M = TypeVar("M", bound=Model)


class PageQuery(StrictSerializer):
    """Query parameters of a list; lists with filters of their own subclass it."""

    page_size = serializers.IntegerField(min_value=1, max_value=SIZE_LARGEST, default=SIZE)
    cursor = serializers.CharField(max_length=200, required=False)


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[M]):
    """Some rows, and the cursor of the next ones; None after the last."""

    rows: Sequence[M]
    next: str | None


def keyset_page(rows: QuerySet[M], *, cursor: str | None, size: int, descending: bool) -> KeysetPage[M]:
    """The rows after the cursor, in the order of their ids.

    Raises:
        ValidationError: the cursor is none of ours.
    """
    if cursor is not None:
        place = _place_of(cursor, rows)
        rows = rows.filter(pk__lt=place) if descending else rows.filter(pk__gt=place)
    # One row more than the page tells whether there is another page.
    found = list(rows.order_by("-pk" if descending else "pk")[: size + 1])
    more = len(found) > size
    found = found[:size]
    return KeysetPage(found, _cursor_of(found[-1]) if more else None)


def page_document(request: Request, page: KeysetPage[Any], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The body of a list."""
    link = None
    if page.next is not None:
        parameters = request.query_params.copy()
        parameters["cursor"] = page.next
        link = request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
    return {"next": link, "results": list(results)}


def _cursor_of(row: Model) -> str:
    return signing.dumps(row.pk if isinstance(row.pk, int) else str(row.pk), salt=_SALT)


def _place_of(cursor: str, rows: QuerySet[Any]) -> Any:
    try:
        return rows.model._meta.pk.to_python(signing.loads(cursor, salt=_SALT))
    except (signing.BadSignature, DjangoValidationError) as exc:
        raise serializers.ValidationError({"cursor": ["This is no cursor of this list."]}, "invalid_cursor") from exc
