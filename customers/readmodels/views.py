"""The read models of customers over HTTP."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from django.contrib.postgres.search import SearchQuery
from django.db import connection, transaction
from django.http import QueryDict
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.errors import InvalidQuery
from customers.instants import instant_text
from customers.models import ActivityDay, DirectoryEntry
from customers.readmodels import descriptions
from customers.readmodels.activity import CustomerActivity
from customers.readmodels.directory import CustomerDirectory, words_of
from operations.errors import FieldError
from operations.scopes import Scope
from operations.serializers import StrictSerializer
from projections.waiting import require_applied

WORDS: Final = 8
FOUND_AT_MOST: Final = 5_000
"""Words that fit more customers than that are answered with some of them."""

_FIRST_DAY: Final = dt.date.min
_MONTH: Final = dt.timedelta(days=29)
_UNCACHED: Final = {"Cache-Control": "private, no-cache"}


class DirectoryQuery(StrictSerializer):
    """Parameters of the directory."""

    q = serializers.CharField(required=False, allow_blank=True, max_length=200)
    wait_for = serializers.CharField(required=False, max_length=40)
    page_size = serializers.IntegerField(min_value=1, max_value=200, default=50)


class ActivityQuery(StrictSerializer):
    """Parameters of the activity."""

    since = serializers.DateField(required=False)
    until = serializers.DateField(required=False)
    wait_for = serializers.CharField(required=False, max_length=40)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        until = attrs.setdefault("until", timezone.now().date())
        if "since" not in attrs:
            attrs["since"] = max(until, _FIRST_DAY + _MONTH) - _MONTH
        if not dt.timedelta(0) <= until - attrs["since"] <= dt.timedelta(days=366):
            raise serializers.ValidationError({"since": ["From since to until there must be 1 to 367 days."]})
        return attrs


class ReadModelView(APIView):
    """Base of the views of read models."""

    required_scopes = {"read": Scope.CUSTOMERS_READ}


@descriptions.directory
class DirectoryView(ReadModelView):
    """Customers by words."""

    def get(self, request: Request) -> Response:
        query = _query(DirectoryQuery, request.query_params)
        require_applied(query.get("wait_for"), CustomerDirectory.name)
        size = query["page_size"]
        found = _search(words_of(query.get("q", ""))[:WORDS], size + 1)
        return Response(
            {"results": [_entry(row) for row in found[:size]], "more": len(found) > size}, headers=_UNCACHED
        )


@descriptions.activity
class ActivityView(ReadModelView):
    """What happened to customers, by day."""

    def get(self, request: Request) -> Response:
        query = _query(ActivityQuery, request.query_params)
        require_applied(query.get("wait_for"), CustomerActivity.name)
        rows = ActivityDay.objects.filter(day__range=(query["since"], query["until"])).order_by(
            "-day", "type", "origin"
        )
        days = [{"day": row.day, "type": row.type, "origin": row.origin, "events": row.events} for row in rows]
        return Response({"since": query["since"], "until": query["until"], "results": days}, headers=_UNCACHED)


def _search(words: list[str], size: int) -> list[DirectoryEntry]:
    """Customers that have a word with each of these beginnings, by name; without words the last changed ones."""
    entries = DirectoryEntry.objects.defer("document")
    if not words:
        return list(entries.order_by("-updated_at", "-customer_id")[:size])
    # Words are letters and digits only, so nothing in them can be taken for an operator.
    wanted = SearchQuery(" & ".join(f"'{word}':*" for word in words), config="simple", search_type="raw")
    with transaction.atomic(), connection.cursor() as cursor:
        # What fits millions is not collected and sorted as a whole.
        cursor.execute("SELECT set_config('gin_fuzzy_search_limit', %s, true)", [str(FOUND_AT_MOST)])
        return list(entries.filter(document=wanted).order_by("name", "customer_id")[:size])


def _entry(row: DirectoryEntry) -> dict[str, Any]:
    return {
        "customer_id": str(row.customer_id),
        "name": row.name,
        "email": row.email,
        "phone": row.phone,
        "version": row.version,
        "origin": row.origin,
        "updated_at": instant_text(row.updated_at),
    }


def _query(serializer: type[StrictSerializer], parameters: QueryDict) -> dict[str, Any]:
    """The parameters, each given at most once and none that is not known."""
    errors = [
        FieldError(code="repeated_parameter", detail="This may be given once.", parameter=name[:100])
        for name, given in parameters.lists()
        if len(given) > 1
    ]
    checked = serializer(data=parameters.dict())
    if not checked.is_valid():
        errors += [
            FieldError(code=detail.code, detail=str(detail), parameter=str(name)[:100])
            for name, details in checked.errors.items()
            for detail in details
        ]
    if errors:
        raise InvalidQuery(errors)
    values: dict[str, Any] = checked.validated_data
    return values
