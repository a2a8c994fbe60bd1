"""Troubles over HTTP."""

from __future__ import annotations

from typing import Any, Final

from django.core import signing
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operations.api import troubles_descriptions as descriptions
from operations.api.keyset import SIZE, SIZE_LARGEST
from operations.audit import actor_of
from operations.idempotency.decorators import idempotent
from operations.scopes import Scope
from operations.serializers import StrictSerializer, query_values
from operations.troubles.access import may_note, may_retry, may_view, sources_for
from operations.troubles.documents import group_document, trouble_document
from operations.troubles.errors import TroubleNotAllowed, TroubleNotFound
from operations.troubles.services import (
    FINGERPRINT_LENGTH,
    source_of,
    trouble_note,
    troubles_groups,
    troubles_page,
    troubles_retry,
)
from operations.troubles.sources import RETRIED_AT_ONCE, TroubleSource

_SALT: Final = "operations.api.troubles"


class GroupQuery(StrictSerializer):
    """Query parameters of the groups."""

    source = serializers.CharField(max_length=40, required=False)  # type: ignore[assignment]
    group = serializers.CharField(max_length=FINGERPRINT_LENGTH, required=False)
    snoozed = serializers.BooleanField(required=False, default=True)


class TroubleQuery(StrictSerializer):
    """Query parameters of the list."""

    source = serializers.CharField(max_length=40, required=False)  # type: ignore[assignment]
    group = serializers.CharField(max_length=FINGERPRINT_LENGTH, required=False)
    page_size = serializers.IntegerField(min_value=1, max_value=SIZE_LARGEST, default=SIZE)
    cursor = serializers.CharField(max_length=400, required=False)


class Retry(StrictSerializer):
    """Which troubles, and why: ids or a group."""

    source = serializers.CharField(max_length=40)  # type: ignore[assignment]
    ids = serializers.ListField(
        child=serializers.CharField(max_length=64), required=False, min_length=1, max_length=RETRIED_AT_ONCE
    )
    group = serializers.CharField(max_length=FINGERPRINT_LENGTH, required=False)
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("ids" in attrs) == ("group" in attrs):
            raise serializers.ValidationError({"ids": ["Give either ids or a group."]})
        return attrs


class Note(StrictSerializer):
    """What is known of a group; what is left out is emptied."""

    source = serializers.CharField(max_length=40)  # type: ignore[assignment]
    group = serializers.CharField(max_length=FINGERPRINT_LENGTH)
    owner = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")
    note = serializers.CharField(max_length=4000, required=False, allow_blank=True, default="")
    snoozed_until = serializers.DateTimeField(required=False, allow_null=True, default=None)


class TroubleView(APIView):
    """Base of the views of troubles."""

    required_scopes = {"read": Scope.OPERATIONS_READ, "write": Scope.OPERATIONS_WRITE}


@descriptions.troubles
class TroubleListView(TroubleView):
    """Everything that needs a person, one source after the other."""

    def get(self, request: Request) -> Response:
        query = _validated(TroubleQuery(data=query_values(request)))
        place = _place_of(query["cursor"]) if "cursor" in query else ("", "")
        found, following = troubles_page(
            _chosen(request, query), fingerprint=query.get("group"), place=place, limit=query["page_size"]
        )
        link = None
        if following is not None:
            parameters = request.query_params.copy()
            parameters["cursor"] = signing.dumps(following, salt=_SALT)
            link = request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
        return Response({"next": link, "results": [trouble_document(*one) for one in found]})


@descriptions.groups
class GroupListView(TroubleView):
    """The kinds of trouble that there are."""

    def get(self, request: Request) -> Response:
        query = _validated(GroupQuery(data=query_values(request)))
        found = troubles_groups(_chosen(request, query), fingerprint=query.get("group"))
        now = timezone.now()
        shown = [one for one in found if query["snoozed"] or not one.is_snoozed(now)]
        return Response({"results": [group_document(one) for one in shown]})


@descriptions.retries
class RetryView(TroubleView):
    """Has troubles tried again."""

    @idempotent()
    def post(self, request: Request) -> Response:
        given = _validated(Retry(data=request.data))
        source = source_of(given["source"])
        if not may_retry(request, source):
            raise TroubleNotAllowed
        ids = given.get("ids")
        retried = troubles_retry(
            source=source, ids=ids, fingerprint=given.get("group"), actor=actor_of(request), reason=given["reason"]
        )
        return Response({"retried": retried, "not_retried": sorted(set(ids or ()) - set(retried))})


@descriptions.notes
class NoteView(TroubleView):
    """Writes down who looks after a group."""

    @idempotent()
    def put(self, request: Request) -> Response:
        given = _validated(Note(data=request.data))
        source = source_of(given.pop("source"))
        if not (may_note(request) and may_view(request, source)):
            raise TroubleNotAllowed
        fingerprint = given.pop("group")
        if not source.groups(fingerprint=fingerprint):
            raise TroubleNotFound
        trouble_note(source=source, fingerprint=fingerprint, actor=actor_of(request), **given)
        return Response(
            {"results": [group_document(one) for one in troubles_groups([source], fingerprint=fingerprint)]}
        )


def _chosen(request: Request, query: dict[str, Any]) -> list[TroubleSource]:
    if "source" not in query:
        return sources_for(request)
    source = source_of(query["source"], parameter="source")
    if not may_view(request, source):
        raise TroubleNotAllowed
    return [source]


def _place_of(cursor: str) -> tuple[str, str]:
    try:
        source, after = signing.loads(cursor, salt=_SALT)
    except signing.BadSignature as exc:
        raise serializers.ValidationError({"cursor": ["This is no cursor of this list."]}, "invalid_cursor") from exc
    return source, after


def _validated(serializer: StrictSerializer) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values
