"""Erasing a customer over HTTP, and asking how far it has come."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import descriptions
from customers.api.serializers import UNCACHED, Nothing, erasure_representation
from customers.api.views import CustomerView, id_of
from customers.erasing.services import customer_erase
from customers.errors import ErasureNotFound
from customers.models import Erasure
from operations.audit import actor_of
from operations.idempotency.decorators import idempotent
from operations.permissions import require
from operations.scopes import Scope


@descriptions.erasure
class ErasureView(CustomerView):
    """The erasure of one customer's personal data."""

    required_scopes = {"read": Scope.CUSTOMERS_READ, "write": Scope.CUSTOMERS_ERASE}

    def get(self, request: Request, customer_id: str) -> Response:
        erasure = Erasure.objects.filter(pk=id_of(customer_id)).first()
        if erasure is None:
            raise ErasureNotFound
        return Response(erasure_representation(erasure), headers=UNCACHED)

    @idempotent()
    def post(self, request: Request, customer_id: str) -> Response:
        require(request, "customers.erase_customer")
        Nothing(data=request.data or {}).is_valid(raise_exception=True)
        erasure = customer_erase(customer_id=id_of(customer_id), actor=actor_of(request))
        body: dict[str, Any] = erasure_representation(erasure)
        return Response(body, status=200 if erasure.finished_at else 202, headers=UNCACHED)
