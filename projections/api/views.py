"""Health, checkpoints, failures, replay and reset of read models over HTTP."""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers, status
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operations.api.keyset import PageQuery, keyset_page, page_document
from operations.audit import actor_of
from operations.health import system_health
from operations.idempotency.decorators import idempotent
from operations.long_actions.documents import operation_document, plan_document
from operations.long_actions.planning import operation_plan
from operations.scopes import Scope
from operations.serializers import KnownField, StrictSerializer, query_values
from outbox.events import NAME_LENGTH
from projections.access import REPLAY, RESET, RESOLVE, SEE_DETAIL, may, require
from projections.api import descriptions
from projections.api.throttling import ReplayThrottle
from projections.documents import (
    checkpoint_document,
    failure_document,
    health_document,
    not_built,
    status_document,
)
from projections.health import projection_health
from projections.models import Failure, FailureState
from projections.models.failure import ACTIVE
from projections.registry import projection_named
from projections.replaying import ReplayKind, replay_start
from projections.resetting import NothingBuilt, projection_reset, reset_token
from projections.resolving import FailureNotFound, failure_resolve

_UNCACHED: Final = {"Cache-Control": "no-store"}
_LARGEST_ID: Final = 2**63 - 1


class FailureQuery(PageQuery):
    """Query parameters of the list of failures."""

    state = KnownField([*FailureState.values, "active", "all"], default="active")


class ReplayBody(StrictSerializer):
    """What is to be replayed, and how fast."""

    from_sequence = serializers.IntegerField(allow_null=True, default=None)
    to_sequence = serializers.IntegerField(allow_null=True, default=None)
    aggregate_type = serializers.CharField(max_length=100, required=False)
    aggregate_id = serializers.CharField(max_length=NAME_LENGTH, required=False)
    dry_run = serializers.BooleanField(default=False)
    rate = serializers.FloatField(allow_null=True, default=None)
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class ResetBody(StrictSerializer):
    """The token of the first call."""

    confirmation_token = serializers.CharField(max_length=500, required=False, allow_null=True, default=None)


class ResolveBody(StrictSerializer):
    """What becomes of the failure."""

    failure_id = serializers.CharField(max_length=20, required=False)
    compensation_strategy = serializers.CharField(max_length=30)
    note = serializers.CharField(max_length=2000, required=False, allow_blank=True, default="")
    compensation = serializers.CharField(max_length=100, required=False, allow_blank=True, default="")


class ProjectionView(APIView):
    """Base of the views of read models."""

    required_scopes = {"read": Scope.OPERATIONS_READ, "write": Scope.OPERATIONS_WRITE}


@descriptions.system
class SystemHealthView(ProjectionView):
    """Everything that the service needs, and its read models."""

    def get(self, request: Request) -> Response:
        system, models = system_health(), health_document()
        short = {name: one["status"] for name, one in models["projections"].items()}
        worse = system["status"] if models["status"] == "healthy" or system["status"] == "unhealthy" else "degraded"
        return Response({**system, "status": worse, "projections": short}, headers=_UNCACHED)


@descriptions.health
class HealthView(ProjectionView):
    """Health of all read models."""

    def get(self, request: Request) -> Response:
        return Response(health_document(), headers=_UNCACHED)


@descriptions.projection
class ProjectionHealthView(ProjectionView):
    """Health of one read model."""

    def get(self, request: Request, name: str) -> Response:
        found = projection_health(name)
        return Response(found.document() if found else not_built(name), headers=_UNCACHED)


@descriptions.checkpoint
class CheckpointView(ProjectionView):
    """Where a read model stands."""

    def get(self, request: Request, name: str) -> Response:
        found = projection_health(name)
        if found is None:
            raise NothingBuilt
        return Response(checkpoint_document(found), headers=_UNCACHED)


@descriptions.failures
class FailureListView(ProjectionView):
    """Events that could not be applied, newest first."""

    def get(self, request: Request, name: str) -> Response:
        projection_named(name)
        query = _validated(FailureQuery(data=query_values(request)))
        rows = Failure.objects.filter(projection=name)
        if query["state"] == "active":
            rows = rows.filter(state__in=ACTIVE)
        elif query["state"] != "all":
            rows = rows.filter(state=query["state"])
        page = keyset_page(rows, cursor=query.get("cursor"), size=query["page_size"], descending=True)
        with_detail = may(request, SEE_DETAIL)
        results = [failure_document(row, with_detail=with_detail) for row in page.rows]
        return Response(page_document(request, page, results), headers=_UNCACHED)


@descriptions.status
class StatusView(ProjectionView):
    """All builds of all projections."""

    def get(self, request: Request) -> Response:
        return Response(status_document(), headers=_UNCACHED)


@descriptions.replay
class ReplayView(ProjectionView):
    """Computes anew what a range of the log touched."""

    def get_throttles(self) -> list[Any]:
        return [*super().get_throttles(), ReplayThrottle()]

    @idempotent()
    def post(self, request: Request, name: str) -> Response:
        projection_named(name)
        require(request, REPLAY)
        given = _validated(ReplayBody(data=request.data or {}))
        aggregate = given.get("aggregate_type", ""), given.get("aggregate_id", "")
        ends = {part: given[part] for part in ("from_sequence", "to_sequence")}
        try:
            if given["dry_run"]:
                filter = {"projection": name, **ends, "aggregate_type": aggregate[0], "aggregate_id": aggregate[1]}
                frozen, plan = operation_plan(kind=ReplayKind.name, filter=filter)
                return Response(plan_document(ReplayKind.name, frozen, plan))
            operation = replay_start(
                name=name,
                actor=actor_of(request),
                **ends,
                aggregate=aggregate if any(aggregate) else None,
                rate=given["rate"],
                reason=given["reason"],
            )
        except ValidationError as exc:
            # The caller knows nothing of the filter that its values became part of.
            detail = exc.detail.get("filter", exc.detail) if isinstance(exc.detail, dict) else exc.detail
            raise ValidationError(detail) from exc
        place = request.build_absolute_uri(f"/api/v1/admin/operations/{operation.pk}/")
        return Response(operation_document(operation), status=status.HTTP_202_ACCEPTED, headers={"Location": place})


@descriptions.reset
class ResetView(ProjectionView):
    """Empties a read model; with the token of a first call."""

    @idempotent()
    def post(self, request: Request, name: str) -> Response:
        projection_named(name)
        require(request, RESET)
        token = _validated(ResetBody(data=request.data or {}))["confirmation_token"]
        actor = actor_of(request)
        if not token:
            return Response(
                {
                    "projection": name,
                    "confirmation_token": reset_token(name=name, actor=actor),
                    "detail": "Readers will see an empty read model until it is filled anew. Send the token to do it.",
                },
                status=status.HTTP_200_OK,
                headers=_UNCACHED,
            )
        build = projection_reset(name=name, token=token, actor=actor)
        return Response({"projection": name, "build": build.pk, "reset": True}, status=status.HTTP_202_ACCEPTED)


@descriptions.resolve
class ResolveView(ProjectionView):
    """Decides what becomes of a failure."""

    @idempotent()
    def post(self, request: Request, failure_id: str) -> Response:
        require(request, RESOLVE)
        given = _validated(ResolveBody(data=request.data))
        if given.get("failure_id", failure_id) != failure_id:
            raise ValidationError({"failure_id": ["This is not the failure of the address."]})
        if not (failure_id.isascii() and failure_id.isdigit()) or int(failure_id[:20]) > _LARGEST_ID:
            raise FailureNotFound
        failure = failure_resolve(
            failure_id=int(failure_id),
            strategy=given["compensation_strategy"],
            actor=actor_of(request),
            note=given["note"],
            compensation=given["compensation"],
        )
        return Response(failure_document(failure, with_detail=may(request, SEE_DETAIL)))


def _validated(serializer: StrictSerializer) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values
