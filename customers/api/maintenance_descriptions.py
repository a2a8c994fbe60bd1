"""How the API's description (OpenAPI) shows the views of maintenance."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

from customers.api.descriptions import answers

_TAGS: Final = ["consistency"]
INTEGRATION: Final = OpenApiParameter("integration_name", str, description="of one integration; of all without it")
_OVER: Final = OpenApiResponse(OpenApiTypes.OBJECT, description="It is over; `result` says what came of it.")
_UNDER_WAY: Final = OpenApiResponse(
    OpenApiTypes.OBJECT, description="It goes on; poll the operation at `url`, which Location names too."
)


def _example(kind: str, filter: dict[str, Any], result: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(
        "It is over",
        {
            "id": 7,
            "kind": kind,
            "state": "completed",
            "filter": filter,
            "progress": {"items": 2, "succeeded": 2, "failed": 0, "skipped": 0, "percent": 100.0},
            "result": result,
            "url": "https://crm.example.com/api/v1/admin/operations/7/",
        },
        response_only=True,
        status_codes=["200"],
    )


def _beginning(name: str, summary: str, description: str, parameters: list[Any], example: OpenApiExample) -> Any:
    return extend_schema_view(
        post=extend_schema(
            operation_id=name,
            summary=summary,
            description=description,
            tags=_TAGS,
            parameters=parameters,
            request=None,
            responses=answers({200: _OVER, 202: _UNDER_WAY}, 400),
            examples=[example],
        )
    )


retry_failed_syncs: Final = _beginning(
    "customers_retry_failed_syncs",
    "Try failed synchronisations again",
    "Marks every failed sync state to be looked at again, after all that is more urgent. What failed for reasons that "
    "may pass is tried again by itself, every hour for a day.",
    [INTEGRATION],
    _example("customers.retry_syncs", {"integration": "stripe"}, {"retried": 2, "skipped": 0}),
)
