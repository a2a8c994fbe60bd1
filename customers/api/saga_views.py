"""Protected changes over HTTP: how one stands."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api.descriptions import answers
from customers.api.saga_serializers import SagaOutput, SagaPageOutput
from customers.api.views import id_of
from customers.models import Saga
from customers.sagas.documents import saga_document
from customers.sagas.errors import SagaNotFound
from operations.api.keyset import PageQuery, keyset_page, page_document
from operations.permissions import require
from operations.scopes import Scope
from operations.serializers import KnownField, query_values

_ID = OpenApiParameter("saga_id", OpenApiTypes.UUID, OpenApiParameter.PATH)


class SagaQuery(PageQuery):
    """Query parameters of the list."""

    status = KnownField(Saga.Status.choices, required=False)
    customer_id = serializers.UUIDField(required=False)


class SagaListView(APIView):
    """All protected changes."""

    required_scopes = {"read": Scope.OPERATIONS_READ}

    @extend_schema(
        operation_id="customers_saga_list",
        summary="Protected changes",
        description="Newest first; those that have ended are kept for some time.",
        tags=["customers"],
        parameters=[
            OpenApiParameter("status", str, enum=Saga.Status.values),
            OpenApiParameter("customer_id", OpenApiTypes.UUID),
            OpenApiParameter("page_size", int, description="1 to 500, 50 by default"),
            OpenApiParameter("cursor", str, description="where the page begins, as the page before said"),
        ],
        responses=answers({200: SagaPageOutput}, 400),
    )
    def get(self, request: Request) -> Response:
        require(request, "customers.view_saga")
        query = SagaQuery(data=query_values(request))
        query.is_valid(raise_exception=True)
        values = query.validated_data
        wanted = {name: values[name] for name in ("status", "customer_id") if name in values}
        rows = Saga.objects.filter(**wanted).defer("values").prefetch_related("steps")
        page = keyset_page(rows, cursor=values.get("cursor"), size=values["page_size"], descending=True)
        body = page_document(request, page, [saga_document(saga) for saga in page.rows])
        return Response(body, headers={"Cache-Control": "no-store"})


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
