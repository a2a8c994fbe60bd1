"""How the API's description (OpenAPI) shows the views of operations."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiParameter,
    OpenApiResponse,
    extend_schema,
    extend_schema_view,
    inline_serializer,
)
from rest_framework import serializers

from operations.models import ItemState, OperationState

_TAGS: Final = ["operations"]
_PROBLEMS: Final[dict[int, Any]] = {
    400: OpenApiResponse(description="A value is not valid."),
    401: OpenApiResponse(description="No valid credentials."),
    403: OpenApiResponse(description="The credentials do not reach so far."),
}
_NOT_FOUND: Final[dict[int, Any]] = {404: OpenApiResponse(description="There is no such operation.")}
_REFUSED: Final[dict[int, Any]] = {409: OpenApiResponse(description="The operation's state does not allow it.")}
_OBJECT: Final = OpenApiResponse(OpenApiTypes.OBJECT)
_PAGE: Final = [
    OpenApiParameter("cursor", str, description="where the page begins, as the page before said"),
    OpenApiParameter("page_size", int, description="rows of a page, 1 to 500; 50 by default"),
]
_ID: Final = OpenApiParameter("operation_id", int, OpenApiParameter.PATH)
_EXAMPLE: Final = OpenApiExample(
    "A dry run first, then the same with a reason",
    {
        "kind": "outbox.replay",
        "filter": {"subscriber": "kafka", "code": "too_large"},
        "reason": "The broker's limit was raised.",
        "dry_run": False,
        "canary": 10,
        "rate": 50,
        "ramp_seconds": 60,
        "stop_error_rate": 0.2,
    },
    request_only=True,
)
_NEW: Final = inline_serializer(
    "NewOperation",
    {
        "kind": serializers.CharField(max_length=60),
        "filter": serializers.DictField(required=False),
        "reason": serializers.CharField(
            max_length=500, required=False, allow_blank=True, help_text="required unless it is a dry run"
        ),
        "dry_run": serializers.BooleanField(required=False, help_text="count only; nothing is kept"),
        "canary": serializers.IntegerField(required=False, min_value=0, max_value=1_000_000),
        "rate": serializers.FloatField(required=False, allow_null=True, min_value=0.01, max_value=100_000),
        "ramp_seconds": serializers.IntegerField(required=False, min_value=0, max_value=86_400),
        "stop_error_rate": serializers.FloatField(required=False, max_value=1),
    },
)
_NOTE: Final = inline_serializer(
    "OperationNote", {"note": serializers.CharField(max_length=500, required=False, allow_blank=True)}
)

operations = extend_schema_view(
    get=extend_schema(
        operation_id="operations_list",
        summary="List operations",
        description="Newest first.",
        tags=_TAGS,
        parameters=[
            *_PAGE,
            OpenApiParameter("state", str, enum=OperationState.values),
            OpenApiParameter("kind", str, description="name of a kind"),
        ],
        responses={200: _OBJECT, **_PROBLEMS},
    ),
    post=extend_schema(
        operation_id="operations_create",
        summary="Plan an operation",
        description="Counts what the filter matches. With `dry_run` that is all (200). Without it the plan is kept "
        "(201) and nothing is done until it is started.",
        tags=_TAGS,
        request=_NEW,
        examples=[_EXAMPLE],
        responses={
            200: OpenApiResponse(OpenApiTypes.OBJECT, description="The dry run."),
            201: OpenApiResponse(OpenApiTypes.OBJECT, description="The planned operation."),
            **_PROBLEMS,
        },
    ),
)
kinds = extend_schema_view(
    get=extend_schema(
        operation_id="operations_kinds",
        summary="List the kinds of operations",
        tags=_TAGS,
        responses={200: _OBJECT, **_PROBLEMS},
    )
)
operation = extend_schema_view(
    get=extend_schema(
        operation_id="operations_retrieve",
        summary="Look at an operation and its progress",
        tags=_TAGS,
        parameters=[_ID],
        responses={200: _OBJECT, **_PROBLEMS, **_NOT_FOUND},
    )
)
items = extend_schema_view(
    get=extend_schema(
        operation_id="operations_items",
        summary="List the items of an operation with their outcomes",
        description="In the order in which they are carried out.",
        tags=_TAGS,
        parameters=[_ID, *_PAGE, OpenApiParameter("state", str, enum=ItemState.values)],
        responses={200: _OBJECT, **_PROBLEMS, **_NOT_FOUND},
    )
)


def steering(verb: str, summary: str) -> Any:
    """The description of a view that steers."""
    return extend_schema_view(
        post=extend_schema(
            operation_id=f"operations_{verb}",
            summary=summary,
            description="Audited. Asking for the state that it is in already changes nothing.",
            tags=_TAGS,
            parameters=[_ID],
            request=_NOTE,
            responses={200: _OBJECT, **_PROBLEMS, **_NOT_FOUND, **_REFUSED},
        )
    )
