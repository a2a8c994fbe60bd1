"""How the API's description (OpenAPI) shows the views of read models."""

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

from projections.models import FailureState, Strategy

_TAGS: Final = ["projections"]
_OBJECT: Final = OpenApiResponse(OpenApiTypes.OBJECT)
_PROBLEMS: Final[dict[int, Any]] = {
    401: OpenApiResponse(description="No valid credentials."),
    403: OpenApiResponse(description="The credentials do not reach so far."),
}
_NOT_FOUND: Final[dict[int, Any]] = {404: OpenApiResponse(description="There is no such projection or failure.")}
_INVALID: Final[dict[int, Any]] = {400: OpenApiResponse(description="A value is not valid.")}
_NAME: Final = OpenApiParameter("name", str, OpenApiParameter.PATH, description="name of the projection")


def _get(operation: str, summary: str, description: str, *parameters: OpenApiParameter) -> Any:
    more = _NOT_FOUND if parameters else {}
    return extend_schema_view(
        get=extend_schema(
            operation_id=operation,
            summary=summary,
            description=description,
            tags=_TAGS,
            parameters=list(parameters),
            responses={200: _OBJECT, **_PROBLEMS, **more},
        )
    )


def _post(operation: str, summary: str, description: str, body: Any, answers: dict[int, Any], **more: Any) -> Any:
    return extend_schema_view(
        post=extend_schema(
            operation_id=operation,
            summary=summary,
            description=description,
            tags=_TAGS,
            request=body,
            responses={**answers, **_INVALID, **_PROBLEMS, **_NOT_FOUND},
            **more,
        )
    )


system = _get("system_health", "Health of the service", "Every component, the database, and the read models in short.")
health = _get(
    "projections_health",
    "Health of the read models",
    "healthy without active failures, degraded from 1, critical from 10, offline from 50; critical at least while "
    "something waits and nothing moves.",
)
projection = _get("projection_health", "Health of one read model", "With lag, speed and alerts.", _NAME)
checkpoint = _get(
    "projection_checkpoint", "Checkpoint", "Every event up to it is applied, or recorded as a failure.", _NAME
)
failures = _get(
    "projection_failures",
    "Failures",
    "Newest first. What the errors said is shown to those who may resolve them.",
    _NAME,
    OpenApiParameter("state", str, enum=[*FailureState.values, "active", "all"], description="active by default"),
    OpenApiParameter("cursor", str, description="where the page begins, as the page before said"),
    OpenApiParameter("page_size", int, description="rows of a page, 1 to 500; 50 by default"),
)
status = _get("projections_status", "All builds", "What each projection is made of, and all of its builds.")
replay = _post(
    "projection_replay",
    "Replay",
    "Computes anew the rows of everything that the range touched, as an operation; nothing ever moves backwards. "
    "Without from_sequence it begins after the checkpoint, without to_sequence it ends at the head.",
    inline_serializer(
        "ProjectionReplay",
        {
            "from_sequence": serializers.IntegerField(required=False, allow_null=True),
            "to_sequence": serializers.IntegerField(required=False, allow_null=True),
            "aggregate_type": serializers.CharField(required=False),
            "aggregate_id": serializers.CharField(required=False),
            "dry_run": serializers.BooleanField(required=False, help_text="count only"),
            "rate": serializers.FloatField(
                required=False, allow_null=True, help_text="items of 500 positions a second"
            ),
            "reason": serializers.CharField(required=False, allow_blank=True),
        },
    ),
    {
        200: OpenApiResponse(OpenApiTypes.OBJECT, description="A dry run."),
        202: OpenApiResponse(OpenApiTypes.OBJECT, description="The operation, which is under way."),
        409: OpenApiResponse(description="A replay of it is under way."),
        429: OpenApiResponse(description="Too many replays in this minute."),
    },
    parameters=[_NAME],
)
reset = _post(
    "projection_reset",
    "Reset",
    "The first call answers with a token; the second one, with the token, gives readers an empty read model that is "
    "filled anew.",
    inline_serializer(
        "ProjectionReset", {"confirmation_token": serializers.CharField(required=False, allow_null=True)}
    ),
    {
        200: OpenApiResponse(OpenApiTypes.OBJECT, description="The token."),
        202: OpenApiResponse(OpenApiTypes.OBJECT, description="It is being filled."),
        409: OpenApiResponse(description="The token does not fit, or nothing has been built."),
    },
    parameters=[_NAME],
)
resolve = _post(
    "projection_failure_resolve",
    "Resolve a failure",
    "manual_fix needs a note; compensate calls a function that the projection registers.",
    inline_serializer(
        "FailureResolve",
        {
            "failure_id": serializers.CharField(required=False),
            "compensation_strategy": serializers.ChoiceField(Strategy.values),
            "note": serializers.CharField(required=False, allow_blank=True),
            "compensation": serializers.CharField(required=False, allow_blank=True),
        },
    ),
    {200: _OBJECT, 409: OpenApiResponse(description="It is resolved already.")},
    parameters=[OpenApiParameter("failure_id", int, OpenApiParameter.PATH)],
    examples=[
        OpenApiExample(
            "Fixed by hand",
            {"failure_id": "17", "compensation_strategy": "manual_fix", "note": "set the total in psql"},
            request_only=True,
        )
    ],
)
