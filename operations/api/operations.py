"""Operations over HTTP."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operations.api import descriptions
from operations.api.keyset import PageQuery, keyset_page, page_document
from operations.audit import actor_of
from operations.idempotency.decorators import idempotent
from operations.long_actions.access import may_steer, require_kind
from operations.long_actions.documents import item_document, kind_document, operation_document, plan_document
from operations.long_actions.errors import OperationNotAllowed, OperationNotFound
from operations.long_actions.kinds import kind_named, kinds
from operations.long_actions.planning import REASON_LENGTH, Pace, kind_of, operation_create, operation_plan
from operations.long_actions.steering import operation_steer
from operations.models import ItemState, Operation, OperationItem, OperationState
from operations.scopes import Scope
from operations.serializers import KnownField, StrictSerializer, query_values

_LARGEST_ID: Final = 2**63 - 1


class OperationQuery(PageQuery):
    """Query parameters of the list of operations."""

    state = KnownField(OperationState.choices, required=False)
    kind = serializers.CharField(max_length=60, required=False)

    def validate_kind(self, name: str) -> str:
        if kind_named(name) is None:
            raise serializers.ValidationError(f"One of: {', '.join(kind.name for kind in kinds())}.", "invalid_value")
        return name


class ItemQuery(PageQuery):
    """Query parameters of the list of an operation's items."""

    state = KnownField(ItemState.choices, required=False)


class NewOperation(StrictSerializer):
    """What is to be done, why, and how fast."""

    kind = serializers.CharField(max_length=60)
    filter = serializers.DictField(default=dict)
    reason = serializers.CharField(max_length=REASON_LENGTH, required=False, allow_blank=True, default="")
    dry_run = serializers.BooleanField(default=False, help_text="Count only: nothing is kept, no reason is needed.")
    canary = serializers.IntegerField(default=0, help_text="So many items first; the rest follows if they went well.")
    rate = serializers.FloatField(
        default=None, allow_null=True, help_text="Items a second; null is as fast as it goes."
    )
    ramp_seconds = serializers.IntegerField(default=0, help_text="From a tenth of the rate to all of it.")
    stop_error_rate = serializers.FloatField(default=0.5, help_text="Share of failures above which it pauses.")


class Steering(StrictSerializer):
    """A note for whoever reads the operation later."""

    note = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class OperationView(APIView):
    """Base of the views of operations."""

    required_scopes = {"read": Scope.OPERATIONS_READ, "write": Scope.OPERATIONS_WRITE}


@descriptions.operations
class OperationListView(OperationView):
    """All operations, newest first; and the place where new ones are planned."""

    def get(self, request: Request) -> Response:
        query = _validated(OperationQuery(data=query_values(request)))
        rows = Operation.objects.all()
        for name in ("state", "kind"):
            if name in query:
                rows = rows.filter(**{name: query[name]})
        page = keyset_page(rows, cursor=query.get("cursor"), size=query["page_size"], descending=True)
        return Response(page_document(request, page, [operation_document(row) for row in page.rows]))

    @idempotent()
    def post(self, request: Request) -> Response:
        given = _validated(NewOperation(data=request.data))
        kind = kind_of(given["kind"])
        require_kind(request, kind)
        dry_run, reason = given.pop("dry_run"), given.pop("reason")
        what = {"kind": given.pop("kind"), "filter": given.pop("filter")}
        if dry_run:
            return Response(plan_document(kind.name, *operation_plan(**what)))
        if not may_steer(request, "plan"):
            raise OperationNotAllowed
        operation = operation_create(**what, reason=reason, actor=actor_of(request), pace=Pace(**given))
        place = request.build_absolute_uri(f"{request.path.removesuffix('/')}/{operation.pk}/")
        return Response(operation_document(operation), status=status.HTTP_201_CREATED, headers={"Location": place})


@descriptions.kinds
class KindListView(OperationView):
    """The kinds of operations that there are."""

    def get(self, request: Request) -> Response:
        return Response({"results": [kind_document(kind) for kind in kinds()]})


@descriptions.operation
class OperationDetailView(OperationView):
    """One operation."""

    def get(self, request: Request, operation_id: str) -> Response:
        return Response(operation_document(_operation(operation_id)))


@descriptions.items
class ItemListView(OperationView):
    """The items of an operation, in the order in which they are carried out."""

    def get(self, request: Request, operation_id: str) -> Response:
        query = _validated(ItemQuery(data=query_values(request)))
        rows = OperationItem.objects.filter(operation=_operation(operation_id)).defer("data")
        if "state" in query:
            rows = rows.filter(state=query["state"])
        page = keyset_page(rows, cursor=query.get("cursor"), size=query["page_size"], descending=False)
        return Response(page_document(request, page, [item_document(row) for row in page.rows]))


class SteeringView(OperationView):
    """Base of the views that steer an operation."""

    verb: ClassVar[str]

    @idempotent()
    def post(self, request: Request, operation_id: str) -> Response:
        if not may_steer(request, self.verb):
            raise OperationNotAllowed
        given = _validated(Steering(data=request.data or {}))
        operation = _operation(operation_id)
        if self.verb in ("start", "resume"):
            require_kind(request, kind_of(operation.kind))
        operation = operation_steer(
            verb=self.verb, operation_id=operation.pk, actor=actor_of(request), note=given["note"]
        )
        return Response(operation_document(operation))


@descriptions.steering("start", "Start a planned operation")
class StartView(SteeringView):
    """Lets a planned operation begin."""

    verb = "start"


@descriptions.steering("pause", "Pause a running operation")
class PauseView(SteeringView):
    """No further batch begins; the one under way is finished."""

    verb = "pause"


@descriptions.steering("resume", "Resume a paused operation")
class ResumeView(SteeringView):
    """Goes on where it was paused or stopped by itself."""

    verb = "resume"


@descriptions.steering("cancel", "Cancel an operation for good")
class CancelView(SteeringView):
    """Ends it; what was done stays done."""

    verb = "cancel"


def _operation(text: str) -> Operation:
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > _LARGEST_ID:
        raise OperationNotFound
    if (found := Operation.objects.filter(pk=int(text)).first()) is None:
        raise OperationNotFound
    return found


def _validated(serializer: StrictSerializer) -> dict[str, Any]:
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values
