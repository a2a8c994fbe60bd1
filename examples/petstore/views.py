"""The shop over HTTP."""

from __future__ import annotations

from typing import Any, Final

from django.db.models import Q, QuerySet
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from examples.petstore import descriptions
from examples.petstore.errors import UnknownOrder
from examples.petstore.figures import shop_figures
from examples.petstore.models import OrderBookEntry
from examples.petstore.order_book import OrderBook
from examples.petstore.services import order_place, pet_create, pet_payload, user_register
from operations.idempotency.decorators import idempotent
from operations.permissions import require
from operations.scopes import Scope
from operations.serializers import StrictSerializer, query_values
from projections.waiting import require_applied

_UNCACHED: Final = {"Cache-Control": "no-store"}


class PetBody(StrictSerializer):
    """A pet for sale."""

    name = serializers.CharField(max_length=100)
    species = serializers.CharField(max_length=50)
    breed = serializers.CharField(max_length=100, required=False, allow_blank=True)
    age = serializers.IntegerField(min_value=0, max_value=200, required=False, allow_null=True)
    price = serializers.DecimalField(max_digits=10, decimal_places=2, min_value=0)
    category = serializers.CharField(max_length=50, required=False, allow_blank=True)
    description = serializers.CharField(max_length=2000, required=False, allow_blank=True)
    stock = serializers.IntegerField(min_value=1, max_value=100_000, required=False)

    def validate_price(self, value: Any) -> Any:
        if value <= 0:
            raise serializers.ValidationError("A pet costs something.", code="min_value")
        return value


class OrderBody(StrictSerializer):
    """An order."""

    customer_id = serializers.CharField(max_length=255)
    pet_id = serializers.CharField(max_length=100)
    quantity = serializers.IntegerField(min_value=1, max_value=100_000, default=1)
    special_instructions = serializers.CharField(max_length=2000, required=False, allow_blank=True, default="")


class UserBody(StrictSerializer):
    """Somebody who registers."""

    name = serializers.CharField(max_length=100)
    email = serializers.EmailField(max_length=254)
    phone = serializers.CharField(max_length=30, required=False, allow_blank=True, default="")


class OrderListQuery(StrictSerializer):
    """Parameters of the order book."""

    customer_id = serializers.CharField(max_length=255, required=False)
    wait_for = serializers.CharField(max_length=40, required=False)
    page_size = serializers.IntegerField(min_value=1, max_value=200, default=50)
    after = serializers.CharField(max_length=100, required=False)


class OrderQuery(StrictSerializer):
    """Parameters of one order."""

    wait_for = serializers.CharField(max_length=40, required=False)


class ShopView(APIView):
    """Base of the shop's views."""

    required_scopes = {"read": Scope.CUSTOMERS_READ, "write": Scope.CUSTOMERS_WRITE}


@descriptions.pets
class PetView(ShopView):
    """Puts a pet up for sale."""

    @idempotent(subject=lambda body: f"pet:{body['pet_id']}")
    def post(self, request: Request) -> Response:
        require(request, "petstore.add_pet")
        pet, event_id = pet_create(**_validated(PetBody(data=request.data)))
        return Response({**pet_payload(pet), "event_id": event_id, "status": "created"})


@descriptions.orders
class OrderView(ShopView):
    """Places orders, and shows the order book."""

    def get(self, request: Request) -> Response:
        query = _validated(OrderListQuery(data=query_values(request)))
        require_applied(query.get("wait_for"), OrderBook.name)
        # By petstore_orders_newest or petstore_orders_of_customer; orders of one instant are told apart by their ids.
        rows = OrderBookEntry.objects.order_by("-ordered_at", "-order_id")
        if "customer_id" in query:
            rows = rows.filter(customer_id=query["customer_id"])
        if "after" in query:
            rows = _older(rows, query["after"])
        size, older = query["page_size"], None
        found = list(rows[: size + 1])
        if len(found) > size:
            parameters = request.query_params.copy()
            parameters["after"] = found[size - 1].pk
            # It is there already.
            parameters.pop("wait_for", None)
            older = request.build_absolute_uri(f"{request.path}?{parameters.urlencode()}")
        return Response({"results": [_entry(row) for row in found[:size]], "next": older}, headers=_UNCACHED)

    @idempotent(subject=lambda body: f"order:{body['order_id']}")
    def post(self, request: Request) -> Response:
        require(request, "petstore.add_order")
        order, event_ids = order_place(**_validated(OrderBody(data=request.data)))
        return Response(
            {
                "order_id": order.pk,
                "customer_id": order.customer_id,
                "pet_id": order.pet_id,
                "quantity": order.quantity,
                "total": float(order.total),
                "status": order.status,
                "event_ids": event_ids,
            }
        )


@descriptions.order
class OneOrderView(ShopView):
    """One order of the order book."""

    def get(self, request: Request, order_id: str) -> Response:
        query = _validated(OrderQuery(data=query_values(request)))
        require_applied(query.get("wait_for"), OrderBook.name)
        entry = OrderBookEntry.objects.filter(pk=order_id).first() if "\0" not in order_id else None
        if entry is None:
            raise UnknownOrder
        return Response(_entry(entry), headers=_UNCACHED)


@descriptions.register
class RegisterView(ShopView):
    """Registers a user."""

    @idempotent(subject=lambda body: f"user:{body['user_id']}")
    def post(self, request: Request, user_id: str) -> Response:
        require(request, "petstore.add_user")
        values = _validated(UserBody(data=request.data))
        identified = _validated(_UserId(data={"user_id": user_id}))
        user, event_id = user_register(user_id=identified["user_id"], **values)
        return Response({"user_id": user.pk, "event_id": event_id, "status": "registered"})


@descriptions.metrics
class MetricsView(ShopView):
    """The outbox as the shop sees it."""

    required_scopes = {"read": Scope.OPERATIONS_READ}

    def get(self, request: Request) -> Response:
        figures = shop_figures()
        return Response(
            {
                "outbox_metrics": {
                    "pending_events": figures.pending_events,
                    "failed_events": figures.failed_events,
                    "processed_today": figures.processed_today,
                    "running": figures.running,
                    "kafka_connected": figures.kafka_connected,
                },
                "service_status": "running" if figures.running else "stopped",
                "kafka_status": "connected" if figures.kafka_connected else "disconnected",
                "timestamp": timezone.now(),
            },
            headers=_UNCACHED,
        )


@descriptions.health
class HealthView(ShopView):
    """Whether the shop's events get through."""

    required_scopes = {"read": Scope.OPERATIONS_READ}

    def get(self, request: Request) -> Response:
        figures = shop_figures()
        is_well = figures.running and figures.kafka_connected and not figures.failed_events
        is_well = is_well and figures.order_book == "healthy"
        return Response(
            {
                "status": "healthy" if is_well else "degraded",
                "service": "petstore-outbox",
                "outbox": "running" if figures.running else "stopped",
                "kafka": "connected" if figures.kafka_connected else "disconnected",
                "order_book": figures.order_book,
                "failed_events": figures.failed_events,
                "timestamp": timezone.now(),
            },
            headers=_UNCACHED,
        )


class _UserId(StrictSerializer):
    user_id = serializers.RegexField(r"^[A-Za-z0-9_.:@-]{1,100}$")


def _older(rows: QuerySet[OrderBookEntry], order_id: str) -> QuerySet[OrderBookEntry]:
    """What comes after this order in the order book.

    Raises:
        ValidationError: it has no such order.
    """
    last = OrderBookEntry.objects.filter(pk=order_id).first()
    if last is None:
        raise serializers.ValidationError({"after": ["The order book has no such order."]})
    same_instant = Q(ordered_at=last.ordered_at, order_id__lt=last.pk)
    return rows.filter(Q(ordered_at__lt=last.ordered_at) | same_instant, ordered_at__lte=last.ordered_at)


def _entry(row: OrderBookEntry) -> dict[str, Any]:
    return {
        "order_id": row.order_id,
        "customer_id": row.customer_id,
        "pet_id": row.pet_id,
        "quantity": row.quantity,
        "total": float(row.total),
        "status": row.status,
        "ordered_at": row.ordered_at,
        "confirmed_at": row.confirmed_at,
    }


def _validated(serializer: StrictSerializer) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values
