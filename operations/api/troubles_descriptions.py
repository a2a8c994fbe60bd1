"""How the API's description (OpenAPI) shows the views of troubles."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers

_TAGS: Final = ["troubles"]
_OBJECT: Final = OpenApiResponse(OpenApiTypes.OBJECT)
_PROBLEMS: Final[dict[int, Any]] = {
    400: OpenApiResponse(description="A value is not valid."),
    401: OpenApiResponse(description="No valid credentials."),
    403: OpenApiResponse(description="The credentials do not reach so far."),
}
_WHICH: Final = [
    OpenApiParameter("source", str, description="only of this source, as deliveries, syncs or conflicts"),
    OpenApiParameter("group", str, description="only of this kind"),
]
_RETRY: Final = inline_serializer(
    "TroubleRetry",
    {
        "source": serializers.CharField(max_length=40),
        "ids": serializers.ListField(child=serializers.CharField(max_length=64), required=False, max_length=1000),
        "group": serializers.CharField(max_length=200, required=False, help_text="instead of ids: its newest thousand"),
        "reason": serializers.CharField(max_length=500, required=False, allow_blank=True),
    },
)
_NOTE: Final = inline_serializer(
    "TroubleNote",
    {
        "source": serializers.CharField(max_length=40),
        "group": serializers.CharField(max_length=200),
        "owner": serializers.CharField(max_length=200, required=False, allow_blank=True),
        "note": serializers.CharField(max_length=4000, required=False, allow_blank=True),
        "snoozed_until": serializers.DateTimeField(required=False, allow_null=True),
    },
)

troubles = extend_schema_view(
    get=extend_schema(
        operation_id="troubles_list",
        summary="List what needs a person",
        description="Dead deliveries, failed synchronisations, conflicts and whatever else the apps register.",
        tags=_TAGS,
        parameters=[
            *_WHICH,
            OpenApiParameter("cursor", str, description="where the page begins, as the page before said"),
            OpenApiParameter("page_size", int, description="rows of a page, 1 to 500; 50 by default"),
        ],
        responses={200: _OBJECT, **_PROBLEMS},
    )
)
groups = extend_schema_view(
    get=extend_schema(
        operation_id="troubles_groups",
        summary="List the kinds of trouble",
        description="Those seen last first, with who looks after them. Counts stop at 10,000.",
        tags=_TAGS,
        parameters=[*_WHICH, OpenApiParameter("snoozed", bool, description="whether to list those that are snoozed")],
        responses={200: _OBJECT, **_PROBLEMS},
    )
)
retries = extend_schema_view(
    post=extend_schema(
        operation_id="troubles_retry",
        summary="Retry troubles",
        description="At most a thousand at once; larger groups are for an operation. Audited.",
        tags=_TAGS,
        request=_RETRY,
        responses={200: _OBJECT, **_PROBLEMS},
    )
)
notes = extend_schema_view(
    put=extend_schema(
        operation_id="troubles_note",
        summary="Write down who looks after a kind of trouble",
        description="Replaces what was written before; audited.",
        tags=_TAGS,
        request=_NOTE,
        responses={200: _OBJECT, **_PROBLEMS, 404: OpenApiResponse(description="There is no such group now.")},
    )
)
