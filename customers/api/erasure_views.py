"""Erasing a customer over HTTP, and asking how far it has come."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from customers.api import descriptions
from customers.api.serializers import UNCACHED, ErasureInput, erasure_representation
from customers.api.views import CustomerView, id_of
from customers.erasing.obstacles import erasure_allow
from customers.erasing.services import customer_erase
from customers.errors import ErasureNotFound
from customers.models import Erasure
from customers.sync.live_looks import live_look
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

    def post(self, request: Request, customer_id: str) -> Any:
        require(request, "customers.erase_customer")
        given = ErasureInput(data=request.data or {})
        given.is_valid(raise_exception=True)
        if not given.validated_data["despite_obstacles"]:
            # Before the key's transaction: calls are never made inside one, and they take a thread of this process.
            with live_look():
                erasure_allow(id_of(customer_id))
        return self._erase(request, customer_id)

    post.is_idempotent = True  # type: ignore[attr-defined]

    @idempotent()
    def _erase(self, request: Request, customer_id: str) -> Response:
        erasure = customer_erase(customer_id=id_of(customer_id), actor=actor_of(request))
        body: dict[str, Any] = erasure_representation(erasure)
        return Response(body, status=200 if erasure.finished_at else 202, headers=UNCACHED)
