"""Differences between both sides over HTTP, and decisions about them."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api.descriptions import answers
from customers.events import AGGREGATE
from customers.models import Drift
from customers.reconciling.decisions import DriftNotFound, drifts_accept, drifts_decline
from customers.reconciling.documents import conflict_left, drift_document
from operations.api.begun import ADDRESS
from operations.api.keyset import PageQuery, keyset_page, page_document
from operations.audit import actor_of
from operations.idempotency.decorators import idempotent
from operations.permissions import require
from operations.scopes import Scope
from operations.serializers import KnownField, StrictSerializer, query_values
from outbox.masking import may_read_payload

_TAGS: Final = ["consistency"]
_ID: Final = OpenApiParameter("drift_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
_OBJECT: Final = OpenApiResponse(OpenApiTypes.OBJECT)
_DECIDED: Final = "It was decided before, or nothing can be done about it from here."
_LARGEST: Final = 2**63 - 1


def _subject(data: Any) -> str:
    # A customer that was imported or linked since is erased by the record's name.
    return f"{AGGREGATE}:{data['customer_id']}" if data["customer_id"] else str(data["subject"])


class DriftQuery(PageQuery):
    """Query parameters of the list."""

    status = KnownField(Drift.Status.choices, default=Drift.Status.OPEN)
    kind = KnownField(Drift.Kind.choices, required=False)


class Decision(StrictSerializer):
    """Why it is decided so."""

    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class DriftView(APIView):
    """Base of the views of differences."""

    required_scopes: ClassVar[dict[str, str]] = {"read": Scope.OPERATIONS_READ, "write": Scope.OPERATIONS_WRITE}


@extend_schema_view(
    get=extend_schema(
        operation_id="customers_drift_list",
        summary="Differences between both sides",
        description="Found by comparisons, newest first; those that wait for a person unless another status is named. "
        "Values of fields are masked for keys without operations:write and people without the permission to read "
        "payloads.",
        tags=_TAGS,
        parameters=[
            OpenApiParameter("status", str, enum=Drift.Status.values, description="open by default"),
            OpenApiParameter("kind", str, enum=Drift.Kind.values),
            OpenApiParameter("page_size", int, description="1 to 500, 50 by default"),
            OpenApiParameter("cursor", str, description="where the page begins, as the page before said"),
        ],
        responses=answers({200: _OBJECT}, 400),
    )
)
class DriftListView(DriftView):
    """All differences."""

    def get(self, request: Request) -> Response:
        require(request, "customers.view_drift")
        query = DriftQuery(data=query_values(request))
        query.is_valid(raise_exception=True)
        values = query.validated_data
        rows = Drift.objects.filter(status=values["status"])
        if "kind" in values:
            rows = rows.filter(kind=values["kind"])
        page = keyset_page(rows, cursor=values.get("cursor"), size=values["page_size"], descending=True)
        return Response(page_document(request, page, [_shown(request, row) for row in page.rows]))


@extend_schema_view(
    get=extend_schema(
        operation_id="customers_drift_retrieve",
        summary="One difference",
        tags=_TAGS,
        parameters=[_ID],
        responses=answers({200: _OBJECT}, 404),
    )
)
class DriftDetailView(DriftView):
    """One difference."""

    def get(self, request: Request, drift_id: str) -> Response:
        require(request, "customers.view_drift")
        return Response(_shown(request, _drift(drift_id)))


@extend_schema_view(
    post=extend_schema(
        operation_id="customers_drift_accept",
        summary="Have a difference repaired",
        description="An operation looks at it once more and repairs it if it is still so; poll it at `operation_url`.",
        tags=_TAGS,
        parameters=[_ID],
        request=Decision,
        responses=answers({202: _OBJECT}, 400, 404, conflict=_DECIDED),
    )
)
class AcceptView(DriftView):
    """A person's consent."""

    @idempotent(subject=_subject)
    def post(self, request: Request, drift_id: str) -> Response:
        require(request, "customers.accept_drift")
        drift = _drift(drift_id)
        done = drifts_accept(ids=[drift.pk], actor=actor_of(request), reason=_reason(request))
        place = request.build_absolute_uri(ADDRESS.format(done.operation.pk))
        drift.refresh_from_db()
        body = {**_shown(request, drift), "repaired_by": done.operation.pk, "operation_url": place}
        return Response(body, status=status.HTTP_202_ACCEPTED, headers={"Location": place})


@extend_schema_view(
    post=extend_schema(
        operation_id="customers_drift_decline",
        summary="Leave a difference as it is",
        description="The same facts are not asked about again. `conflicts` are those about the same record or customer "
        "that stay open, each with what settles it.",
        tags=_TAGS,
        parameters=[_ID],
        request=Decision,
        responses=answers({200: _OBJECT}, 400, 404, conflict=_DECIDED),
    )
)
class DeclineView(DriftView):
    """A person's refusal."""

    @idempotent(subject=_subject)
    def post(self, request: Request, drift_id: str) -> Response:
        require(request, "customers.decline_drift")
        drift = _drift(drift_id)
        done = drifts_decline(ids=[drift.pk], actor=actor_of(request), reason=_reason(request))
        drift.refresh_from_db()
        return Response({**_shown(request, drift), "conflicts": [conflict_left(one) for one in done.conflicts]})


def _shown(request: Request, drift: Drift) -> dict[str, Any]:
    return drift_document(drift, readable=may_read_payload(request))


def _drift(text: str) -> Drift:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= _LARGEST):
        raise DriftNotFound
    if (found := Drift.objects.filter(pk=int(text)).first()) is None:
        raise DriftNotFound
    return found


def _reason(request: Request) -> str:
    given = Decision(data=request.data or {})
    given.is_valid(raise_exception=True)
    values: dict[str, Any] = given.validated_data
    return str(values["reason"])
