"""How the API's description (OpenAPI) shows the life of things."""

from __future__ import annotations

from typing import Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

_EXAMPLE: Final = OpenApiExample(
    "An event",
    {
        "subject": {
            "kind": "event",
            "value": "7312",
            "title": "Event 7312: customer.updated",
            "also": ["correlation:order-21"],
        },
        "others": [],
        "sections": [{"name": "log", "title": "Log", "entries": 1, "more": False, "hidden": False}],
        "entries": [
            {
                "section": "log",
                "kind": "event",
                "id": "7312",
                "what": "customer.updated",
                "at": "2026-03-01T12:00:00.000000Z",
                "ended_at": None,
                "seconds": None,
                "state": "processed",
                "attempts": None,
                "text": "number 3 of customer 019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f, origin api",
                "about": ["customer:019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f", "correlation:order-21"],
                "data": {"name": "•••"},
            }
        ],
    },
    response_only=True,
)
life: Final = extend_schema_view(
    get=extend_schema(
        operation_id="life_retrieve",
        summary="Follow an event, a customer, an order, a correlation id or an id of Stripe",
        description="API call, log, deliveries to Kafka, sync and its requests, webhooks, read models and consumed "
        "messages, in the order of time; what has not happened yet comes last. At most 50 rows of a kind (more says "
        "whether there are others). Payloads are masked for keys without operations:write and people without the "
        "permission to read them; parts that the caller may not see are hidden.",
        tags=["life"],
        parameters=[
            OpenApiParameter(
                "q",
                str,
                required=True,
                description="an id, whatever it is of; or the kind, a colon and the id, as event:7312 or order:order_1",
            )
        ],
        responses={
            200: OpenApiResponse(OpenApiTypes.OBJECT),
            400: OpenApiResponse(description="q is missing, or can be nothing's name."),
            401: OpenApiResponse(description="No valid credentials."),
            403: OpenApiResponse(description="The credentials do not reach so far."),
            404: OpenApiResponse(description="Nothing here goes by that name."),
        },
        examples=[_EXAMPLE],
    )
)
