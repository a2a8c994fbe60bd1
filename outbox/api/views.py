"""The log over HTTP, for operators: what waits, what is dead, and what to do about it."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operations.audit import actor_of, audit_record
from operations.idempotency.decorators import idempotent
from operations.scopes import Scope
from operations.serializers import StrictSerializer, query_values
from outbox.api import descriptions
from outbox.api.access import require
from outbox.api.documents import delivery_document, group_document, pending_document
from outbox.api.errors import EventNotFound
from outbox.api.inputs import DeadLetterQuery, GroupQuery, Nothing, PendingQuery
from outbox.deciding import deliveries_retry
from outbox.figures import failed_figures
from outbox.groups import failure_groups
from outbox.masking import may_read_payload
from outbox.models import Delivery, DeliveryState, StoredEvent, Subscription
from outbox.pending import pending_events
from outbox.relay import relay_once
from outbox.statistics import statistics_forget, statistics_recent

UNCACHED: Final = {"Cache-Control": "no-store"}
PROCESS_SECONDS: Final = 3.0
_FILTERS: Final = {
    "subscriber": "subscription_id",
    "topic": "topic",
    "event_type": "type",
    "aggregate_id": "aggregate_id",
    "error_class": "error_class",
    "error_code": "code",
    "fingerprint": "fingerprint",
}


class OutboxView(APIView):
    """Base of the views of the outbox. Actions that take nothing do not look at the body, of whatever type it is."""

    required_scopes = {"read": Scope.OPERATIONS_READ, "write": Scope.OPERATIONS_WRITE}

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        if request.method not in SAFE_METHODS and response.status_code < 400:
            # Who did something sees it in the figures at once.
            statistics_forget()
        return super().finalize_response(request, response, *args, **kwargs)


@descriptions.statistics
class StatisticsView(OutboxView):
    """Totals, rates and ages."""

    def get(self, request: Request) -> Response:
        validated(Nothing(data=query_values(request)))
        return Response(statistics_recent(), headers=UNCACHED)


@descriptions.pending
class PendingView(OutboxView):
    """Events that wait for some subscriber."""

    def get(self, request: Request) -> Response:
        query = validated(PendingQuery(data=query_values(request)))
        readable = may_read_payload(request)
        events = [pending_document(one, readable=readable) for one in pending_events(most=query["page_size"])]
        return Response({"events": events, "count": len(events)}, headers=UNCACHED)


@descriptions.dead_letter
class DeadLetterView(OutboxView):
    """Dead deliveries."""

    def get(self, request: Request) -> Response:
        query = validated(DeadLetterQuery(data=query_values(request)))
        wanted = {_FILTERS[name]: value for name, value in query.items() if name in _FILTERS}
        rows = Delivery.objects.filter(state=DeliveryState.DEAD, **wanted)
        found = list(_after(rows, query).order_by("-pk")[: query["page_size"] + 1])
        headers = dict(UNCACHED)
        if len(found) > query["page_size"]:
            found = found[: query["page_size"]]
            more = request.query_params.dict() | {"cursor": str(found[-1].pk)}
            headers["Link"] = f'<{request.build_absolute_uri(request.path)}?{urlencode(more)}>; rel="next"'
        readable = may_read_payload(request)
        retries = dict(Subscription.objects.values_list("name", "max_retries"))
        events = [
            delivery_document(one, readable=readable, max_retries=retries.get(one.subscription_id, 0)) for one in found
        ]
        # The count of all of them where nothing narrows the list; of the page, and how many there are at most, else.
        count = rows[:COUNTED].count() if wanted else sum(x.count for x in failed_figures() if x.state == "dead")
        return Response({"events": events, "count": count}, headers=headers)


@descriptions.retry
class RetryView(OutboxView):
    """Tries an event's dead deliveries again."""

    @idempotent()
    def post(self, request: Request, event_id: str) -> Response:
        require(request, "outbox.retry_delivery")
        ids = _deliveries_of(event_id)
        retried = deliveries_retry(ids=ids[:1_000], actor=actor_of(request)) if ids else []
        return Response({"success": bool(retried)}, headers=UNCACHED)


@descriptions.process
class ProcessView(OutboxView):
    """Brings what waits to the subscribers now, for a few seconds."""

    # Bringing what still waits a second time brings nothing twice.
    @idempotent(outside_for=PROCESS_SECONDS + 60)
    def post(self, request: Request) -> Response:
        require(request, "outbox.process_log")
        processed = relay_once(seconds=PROCESS_SECONDS)
        audit_record(actor=actor_of(request), action="outbox.processed", detail={"events": processed})
        return Response({"success": True, "processed": processed}, headers=UNCACHED)


@descriptions.groups
class GroupsView(OutboxView):
    """Open failures by kind."""

    def get(self, request: Request) -> Response:
        query = validated(GroupQuery(data=query_values(request)))
        groups = [group_document(one) for one in failure_groups(subscriber=query.get("subscriber"))]
        return Response({"results": groups}, headers=UNCACHED)


COUNTED: Final = 10_000


def validated(serializer: StrictSerializer) -> dict[str, Any]:
    """The values of a valid input.

    Raises:
        ValidationError: it is not.
    """
    serializer.is_valid(raise_exception=True)
    values: dict[str, Any] = serializer.validated_data
    return values


def number_of(text: str) -> int | None:
    """A number of a row, or None for what cannot be one."""
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        return None
    number = int(text)
    return number if 0 < number < 2**63 else None


def _after(rows: Any, query: dict[str, Any]) -> Any:
    return rows.filter(pk__lt=query["cursor"]) if "cursor" in query else rows


def _deliveries_of(text: str) -> list[int]:
    """Dead deliveries of an event, by its number or its uid.

    Raises:
        EventNotFound: there is none, and no delivery remembers one.
    """
    number = number_of(text)
    if number is None:
        number = _number_of_uid(text)
    if number is None:
        raise EventNotFound
    found = list(Delivery.objects.filter(event_id=number).values_list("pk", "state"))
    if not found and not StoredEvent.objects.filter(pk=number).exists():
        raise EventNotFound
    return [pk for pk, state in found if state == DeliveryState.DEAD]


def _number_of_uid(text: str) -> int | None:
    try:
        uid = UUID(text)
    except ValueError:
        return None
    return StoredEvent.objects.filter(uid=uid).values_list("pk", flat=True).first()
