"""Keeping both sides the same, over HTTP: what is small is done before the answer, all else is an operation to poll."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from customers.api import maintenance_descriptions as descriptions
from customers.consistency.fixing import FixConsistency, fix_begin
from customers.consistency.health import integration_health
from customers.consistency.validating import consistency_validate
from customers.errors import InvalidQuery, parameter_unknown
from customers.reconciling.kinds import ORPHANS, Reconcile, comparison_under_way
from customers.sync.live_looks import live_look
from customers.sync.trying_again import RetryFailedSyncs, integration_named
from operations.api.begun import BeginningView, operation_answer
from operations.audit import actor_of
from operations.errors import FieldError
from operations.long_actions.kinds import Kind
from operations.models import Operation
from operations.permissions import require, scopes_of
from operations.scopes import Scope
from operations.serializers import StrictSerializer, query_values

_UNCACHED = {"Cache-Control": "no-store"}


class IntegrationQuery(StrictSerializer):
    """Which integration."""

    integration_name = serializers.CharField(max_length=32, default="", validators=[integration_named])


class DryRunQuery(IntegrationQuery):
    """Which integration, and whether anything is done."""

    dry_run = serializers.BooleanField(default=False)


class NoBody(StrictSerializer):
    """Nothing is said in the body; an empty object may be sent."""


@descriptions.retry_failed_syncs
class RetryFailedSyncsView(BeginningView):
    """Failed synchronisations, tried again."""

    kind: ClassVar[Kind] = RetryFailedSyncs()

    def filter_of(self, request: Request) -> dict[str, Any]:
        values = query_of(request, DryRunQuery)
        return {"integration": values["integration_name"], "dry_run": values["dry_run"]}


@descriptions.cleanup_orphaned
class CleanupOrphanedView(BeginningView):
    """What belongs to nobody, on either side."""

    kind: ClassVar[Kind] = Reconcile()
    # Pages of the other side are read within the request, so few of them are small.
    small: ClassVar[int] = 30

    def filter_of(self, request: Request) -> dict[str, Any]:
        values = query_of(request, DryRunQuery)
        return {"integration": values["integration_name"], "dry_run": values["dry_run"], "only": ORPHANS}

    def begun(self, filter: dict[str, Any]) -> Operation | None:
        return comparison_under_way(self.kind, filter)

    def post(self, request: Request) -> Any:
        # Calls to the other side take a thread of this process each: as many at once as elsewhere.
        with live_look():
            return super().post(request)

    post.is_idempotent = True  # type: ignore[attr-defined]


@descriptions.fix
class FixView(BeginningView):
    """What is inconsistent, mended."""

    kind: ClassVar[Kind] = FixConsistency()

    def filter_of(self, request: Request) -> dict[str, Any]:
        values = query_of(request, DryRunQuery)
        return {"integration": values["integration_name"], "dry_run": values["dry_run"]}


class ConsistencyView(APIView):
    """Base of the views that only look."""

    required_scopes: ClassVar[dict[str, str]] = {"read": Scope.OPERATIONS_READ, "write": Scope.OPERATIONS_WRITE}


@descriptions.validate
class ValidateView(ConsistencyView):
    """What breaks the rules."""

    def get(self, request: Request) -> Response:
        require(request, "customers.view_syncstate")
        name = query_of(request, IntegrationQuery)["integration_name"]
        found = consistency_validate(integration=name)
        if found["complete"] or Scope.OPERATIONS_WRITE not in scopes_of(request):
            return Response(found, headers=_UNCACHED)
        # Too much to be looked through while somebody waits. However often it is asked, it is one operation.
        operation = fix_begin(integration=name, dry_run=True, actor=actor_of(request), reason="All checks, whole.")
        return operation_answer(request, operation)


@descriptions.integration_health
class IntegrationHealthView(ConsistencyView):
    """How one integration is doing."""

    def get(self, request: Request, integration_name: str) -> Response:
        require(request, "customers.view_syncstate")
        query_of(request, StrictSerializer)
        return Response(integration_health(integration_name), headers=_UNCACHED)


def query_of(request: Request, serializer: type[StrictSerializer]) -> dict[str, Any]:
    """The parameters of the address; the body must be empty.

    Raises:
        InvalidQuery: a parameter is unknown, given twice or not valid.
        ValidationError: the body says something.
    """
    given = {name: value for name, value in query_values(request).items() if name != "format"}
    found = serializer(data=given)
    if not found.is_valid():
        raise InvalidQuery(
            [
                parameter_unknown(str(name))
                if error.code == "unknown_field"
                else FieldError(parameter=str(name)[:100], code=str(error.code), detail=str(error))
                for name, errors in found.errors.items()
                for error in errors
            ]
        )
    if request.method != "GET":
        NoBody(data=request.data or {}).is_valid(raise_exception=True)
    values: dict[str, Any] = found.validated_data
    return values
