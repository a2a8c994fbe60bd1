"""Protected changes over HTTP: how one stands."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api.descriptions import answers
from customers.api.saga_serializers import SagaOutput
from customers.api.views import id_of
from customers.models import Saga
from customers.sagas.documents import saga_document
from customers.sagas.errors import SagaNotFound
from operations.scopes import Scope

_ID = OpenApiParameter("saga_id", OpenApiTypes.UUID, OpenApiParameter.PATH)


class SagaView(APIView):
    """One protected change."""

    required_scopes = {"read": Scope.CUSTOMERS_READ}

    @extend_schema(
        operation_id="customers_saga_retrieve",
        summary="How a protected change stands",
        description="Its steps, what was undone, and what stands in its way. Those that have ended are kept for some "
        "time.",
        tags=["customers"],
        parameters=[_ID],
        responses=answers({200: SagaOutput}, 404),
    )
    def get(self, request: Request, saga_id: str) -> Response:
        saga = Saga.objects.filter(pk=id_of(saga_id, missing=SagaNotFound)).first()
        if saga is None:
            raise SagaNotFound
        return Response(saga_document(saga), headers={"Cache-Control": "no-store"})
