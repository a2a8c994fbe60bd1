"""How the API's description (OpenAPI) shows the read models of customers."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

_PROBLEMS: Final[dict[int, Any]] = {
    400: OpenApiResponse(description="A parameter is not valid, or names an event that does not exist."),
    401: OpenApiResponse(description="No valid credentials."),
    403: OpenApiResponse(description="The credentials do not reach so far."),
    409: OpenApiResponse(description="The event in wait_for cannot take effect before an operator resolves a failure."),
    503: OpenApiResponse(description="The event in wait_for did not take effect yet."),
}
_WAIT_FOR: Final = OpenApiParameter(
    "wait_for", str, description="id or uid of an event; the answer holds its effect, so you read your own writes"
)


def _read(
    operation: str, summary: str, description: str, example: dict[str, Any], *parameters: OpenApiParameter
) -> Any:
    return extend_schema_view(
        get=extend_schema(
            operation_id=operation,
            summary=summary,
            description=description,
            tags=["customers"],
            parameters=[*parameters, _WAIT_FOR],
            examples=[OpenApiExample("Found", example, response_only=True)],
            responses={200: OpenApiResponse(OpenApiTypes.OBJECT), **_PROBLEMS},
        )
    )


directory = _read(
    "customers_directory",
    "Search customers",
    "Customers of whom each word of q begins a word of the name, e-mail or phone number. A read model: it follows "
    "changes within moments.",
    {
        "results": [
            {
                "customer_id": "019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f",
                "name": "Ada Lovelace",
                "email": "ada@example.com",
                "phone": None,
                "version": 3,
                "origin": "api",
                "updated_at": "2026-03-01T12:00:00.000000Z",
            }
        ],
        "more": False,
    },
    OpenApiParameter("q", str, description="words; without any, the customers that changed last"),
    OpenApiParameter("page_size", int, description="1 to 200, 50 by default"),
)
activity = _read(
    "customers_activity",
    "Activity per day",
    "How many customers were created, changed and deleted on each day (UTC), by origin of the change.",
    {
        "since": "2026-03-01",
        "until": "2026-03-01",
        "results": [{"day": "2026-03-01", "type": "customer.created", "origin": "api", "events": 12}],
    },
    OpenApiParameter("since", OpenApiTypes.DATE, description="first day; 29 days before the last one by default"),
    OpenApiParameter("until", OpenApiTypes.DATE, description="last day; today by default"),
)
