"""The synchronisation of one customer over HTTP: how it stands, and decisions about conflicts."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api.descriptions import answers
from customers.api.sync_serializers import ResolutionInput, ResolutionOutput, SyncHealthOutput
from customers.api.views import id_of
from customers.errors import InvalidQuery, parameter_unknown
from customers.instants import instant_text
from customers.sync.health import sync_health
from customers.sync.resolutions import ConflictNotFound, conflict_resolve
from operations.audit import actor_of
from operations.errors import FieldError
from operations.idempotency.decorators import idempotent
from operations.permissions import require
from operations.scopes import Scope

_ID = OpenApiParameter("customer_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_CONFLICT = OpenApiParameter("conflict_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
_LIVE = OpenApiParameter("live", bool, description="ask the integrations now; one call for each")
_LARGEST = 2**63 - 1


class SyncHealthView(APIView):
    """Where a customer stands in each integration."""

    required_scopes = {"read": Scope.CUSTOMERS_READ}

    @extend_schema(
        operation_id="customers_sync_health",
        summary="How a customer's synchronisation stands",
        description="State, work, errors, the request in flight, open conflicts and differences, for each integration; "
        "also of a deleted customer.",
        tags=["customers"],
        parameters=[_ID, _LIVE],
        responses=answers({200: SyncHealthOutput}, 400, 404),
    )
    def get(self, request: Request, customer_id: str) -> Response:
        found = sync_health(customer_id=id_of(customer_id), live=_live(request))
        return Response(found, headers={"Cache-Control": "no-store"})


class ConflictResolutionView(APIView):
    """A person's decision about a conflict."""

    required_scopes = {"write": Scope.OPERATIONS_WRITE}

    @extend_schema(
        operation_id="customers_conflict_resolve",
        summary="Resolve a conflict",
        description="Whose value of the conflict's field holds. The synchronisation then brings it to the other side; "
        "if the other side's value has changed since, that is a new conflict.",
        tags=["customers"],
        parameters=[_ID, _CONFLICT],
        request=ResolutionInput,
        responses=answers(
            {200: ResolutionOutput}, 400, 404, 413, 415, conflict="It was resolved before, or cannot be decided so."
        ),
    )
    @idempotent()
    def post(self, request: Request, customer_id: str, conflict_id: str) -> Response:
        require(request, "customers.resolve_conflict")
        decision = ResolutionInput(data=request.data)
        decision.is_valid(raise_exception=True)
        conflict = conflict_resolve(
            conflict_id=_number(conflict_id),
            take=decision.validated_data["take"],
            actor=actor_of(request),
            reason=decision.validated_data["reason"],
            customer_id=id_of(customer_id),
        )
        return Response(
            {
                "id": conflict.pk,
                "field": conflict.field,
                "resolution": conflict.resolution,
                "resolved_at": instant_text(conflict.resolved_at) if conflict.resolved_at else None,
            },
            status=status.HTTP_200_OK,
        )


def _live(request: Request) -> bool:
    errors = [parameter_unknown(name) for name in request.query_params if name not in ("live", "format")]
    value = request.query_params.get("live", "false")
    if value not in ("true", "false"):
        errors.append(FieldError(parameter="live", code="invalid", detail="It is true or false."))
    if errors:
        raise InvalidQuery(errors)
    return value == "true"


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= _LARGEST):
        raise ConflictNotFound
    return int(text)
