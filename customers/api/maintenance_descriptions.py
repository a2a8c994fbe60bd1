"""How the API's description (OpenAPI) shows the views of maintenance."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

from customers.api.descriptions import answers

_TAGS: Final = ["consistency"]
INTEGRATION: Final = OpenApiParameter("integration_name", str, description="of one integration; of all without it")
DRY_RUN: Final = OpenApiParameter("dry_run", bool, description="true: only tell what would be done; false by default")
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
    "may pass is tried again by itself, every hour for a day. A dry run only tells which would be.",
    [INTEGRATION, DRY_RUN],
    _example("customers.retry_syncs", {"integration": "stripe", "dry_run": False}, {"retried": 2, "skipped": 0}),
)
cleanup_orphaned: Final = _beginning(
    "customers_cleanup_orphaned",
    "Clean up what belongs to nobody, on either side",
    "Compares both sides, within the rate and after all that is more urgent. What is safe by rule is cleaned up: what "
    "we made ourselves, is old enough, has nothing hanging on it, and is not too much at once; the rest become "
    "proposals. A dry run writes the differences down and changes nothing.",
    [INTEGRATION, DRY_RUN],
    _example(
        "customers.reconcile",
        {"integration": "stripe", "dry_run": True},
        {"compared": 200, "differences": {"tombstone_mismatch": 1}, "repaired": 0, "repairable": 1, "proposed": 0},
    ),
)
fix: Final = _beginning(
    "customers_data_consistency_fix",
    "Mend what is inconsistent",
    "Goes through the checks of validate, mends what is safe and tells what is left to a person. A dry run only tells.",
    [INTEGRATION, DRY_RUN],
    _example(
        "customers.fix",
        {"integration": "stripe", "dry_run": False},
        {"dry_run": False, "checks": {"customer_without_state": {"mended": 2}}},
    ),
)
validate: Final = extend_schema_view(
    get=extend_schema(
        operation_id="customers_data_consistency_validate",
        summary="What is inconsistent",
        description="Counts what breaks the rules between customers and their sync states, up to a thousand each, in "
        "our own tables; no integration is asked. When there is too much for that, the answer "
        "is 202 with an operation that goes through everything and changes nothing (with the scope operations:write; "
        "without it, what was counted in time, and `complete` is false).",
        tags=_TAGS,
        parameters=[INTEGRATION],
        responses=answers({200: OpenApiResponse(OpenApiTypes.OBJECT), 202: _UNDER_WAY}, 400),
    )
)
integration_health: Final = extend_schema_view(
    get=extend_schema(
        operation_id="customers_integration_health",
        summary="How an integration is doing",
        description="`healthy`; `degraded` when anything failed, is retried or waits for a person; `critical` when no "
        "call may start now or something has waited for a quarter of an hour. Counts stop at ten thousand.",
        tags=_TAGS,
        parameters=[OpenApiParameter("integration_name", str, OpenApiParameter.PATH)],
        responses=answers({200: OpenApiResponse(OpenApiTypes.OBJECT)}, 400, 404),
    )
)
