"""How the API's description (OpenAPI) shows the shop; it is there where the setting PETSTORE is on."""

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

_TAGS: Final = ["petstore"]
_OBJECT: Final = OpenApiResponse(OpenApiTypes.OBJECT)
_WAIT: Final = OpenApiParameter("wait_for", str, description="id of an event that the answer must show the effect of")
_TEXTS: Final = {
    400: "A value is not valid.",
    401: "No valid credentials.",
    403: "The credentials do not reach so far.",
    404: "There is no such thing.",
    503: "The read model is behind; Retry-After says when to ask again.",
}
_PET: Final = inline_serializer(
    "PetstorePet",
    {
        "name": serializers.CharField(max_length=100),
        "species": serializers.CharField(max_length=50),
        "breed": serializers.CharField(max_length=100, required=False),
        "age": serializers.IntegerField(min_value=0, max_value=200, required=False, help_text="years"),
        "price": serializers.DecimalField(max_digits=10, decimal_places=2, help_text="more than nothing"),
        "category": serializers.CharField(max_length=50, required=False),
        "description": serializers.CharField(max_length=2000, required=False),
        "stock": serializers.IntegerField(min_value=1, max_value=100_000, required=False, help_text="1 by default"),
    },
)
_ORDER: Final = inline_serializer(
    "PetstoreOrder",
    {
        "customer_id": serializers.CharField(max_length=255),
        "pet_id": serializers.CharField(max_length=100),
        "quantity": serializers.IntegerField(min_value=1, max_value=100_000, required=False, help_text="1 by default"),
        "special_instructions": serializers.CharField(max_length=2000, required=False),
    },
)
_USER: Final = inline_serializer(
    "PetstoreUser",
    {
        "name": serializers.CharField(max_length=100),
        "email": serializers.EmailField(max_length=254),
        "phone": serializers.CharField(max_length=30, required=False),
    },
)
_METRICS: Final = OpenApiExample(
    "All is well",
    {
        "outbox_metrics": {
            "pending_events": 5,
            "failed_events": 0,
            "processed_today": 245,
            "running": True,
            "kafka_connected": True,
        },
        "service_status": "running",
        "kafka_status": "connected",
        "timestamp": "2026-03-01T12:00:00.000000Z",
    },
    response_only=True,
)


def _answers(*problems: int, conflict: str = "") -> dict[int, Any]:
    texts = {**_TEXTS, **({409: conflict} if conflict else {})}
    statuses = sorted({401, 403, *problems, *([409] if conflict else [])})
    return {200: _OBJECT, **{status: OpenApiResponse(description=texts[status]) for status in statuses}}


pets: Final = extend_schema_view(
    post=extend_schema(
        operation_id="petstore_pets_create",
        summary="Put a pet up for sale",
        description="The pet and its event are written together.",
        tags=_TAGS,
        request=_PET,
        responses=_answers(400),
    )
)
orders: Final = extend_schema_view(
    get=extend_schema(
        operation_id="petstore_orders_list",
        summary="Show the order book",
        description="A read model, newest orders first; next is the address of the page of older ones, or null.",
        tags=_TAGS,
        parameters=[
            OpenApiParameter("customer_id", str, description="only the orders of this customer"),
            OpenApiParameter("page_size", int, description="1 to 200, 50 by default"),
            OpenApiParameter("after", str, description="id of an order; only those that were placed before it"),
            _WAIT,
        ],
        responses=_answers(400, 503, conflict="The event, or one before it, could not be applied to the order book."),
    ),
    post=extend_schema(
        operation_id="petstore_orders_create",
        summary="Order a pet",
        description="Takes pets out of the stock; the order, its events created and confirmed and the pet's event "
        "reserved are written together. A consumer of Kafka ships it.",
        tags=_TAGS,
        request=_ORDER,
        responses=_answers(400, 404, conflict="There are not so many left."),
    ),
)
order: Final = extend_schema_view(
    get=extend_schema(
        operation_id="petstore_orders_retrieve",
        summary="Show an order of the order book",
        tags=_TAGS,
        parameters=[OpenApiParameter("order_id", str, OpenApiParameter.PATH), _WAIT],
        responses=_answers(
            400, 404, 503, conflict="The event, or one before it, could not be applied to the order book."
        ),
    )
)
register: Final = extend_schema_view(
    post=extend_schema(
        operation_id="petstore_users_register",
        summary="Register a user",
        tags=_TAGS,
        parameters=[OpenApiParameter("user_id", str, OpenApiParameter.PATH)],
        request=_USER,
        responses=_answers(400, conflict="A user of this id is registered already."),
    )
)
metrics: Final = extend_schema_view(
    get=extend_schema(
        operation_id="petstore_metrics",
        summary="Show the outbox as the shop sees it",
        description="Figures of the shop's own events of today (UTC) and of their way to Kafka.",
        tags=_TAGS,
        responses=_answers(),
        examples=[_METRICS],
    )
)
health: Final = extend_schema_view(
    get=extend_schema(
        operation_id="petstore_health",
        summary="Say whether the shop's events get through",
        tags=_TAGS,
        responses=_answers(),
    )
)
