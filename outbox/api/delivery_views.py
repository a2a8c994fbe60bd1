"""One delivery over HTTP: its timeline, and what a person can do with it."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from operations.audit import actor_of
from operations.idempotency.decorators import idempotent
from outbox.api import descriptions
from outbox.api.access import require, told_as_problems
from outbox.api.documents import attempt_document, delivery_document, replacement_document
from outbox.api.errors import ActionRefused, DeliveryNotFound
from outbox.api.inputs import OptionalReason, Reason, Replace
from outbox.api.views import UNCACHED, OutboxView, number_of, validated
from outbox.deciding import deliveries_retry, deliveries_skip
from outbox.masking import may_read_payload
from outbox.models import Delivery, Replacement, StoredEvent
from outbox.replacing import delivery_replace

ATTEMPTS_SHOWN = 200


@descriptions.delivery
class DeliveryView(OutboxView):
    """One delivery with its timeline."""

    def get(self, request: Request, delivery_id: str) -> Response:
        return Response(_document(request, _delivery(delivery_id)), headers=UNCACHED)


def _subject(body: dict[str, Any]) -> str:
    """Whom a kept answer speaks of."""
    return f"{body['aggregate_type']}:{body['aggregate_id']}"


def _subject_of_edit(body: dict[str, Any]) -> str:
    about = StoredEvent.objects.filter(pk=body["event"]).values_list("aggregate_type", "aggregate_id").first()
    return ":".join(about or ())


@descriptions.delivery_retry
class DeliveryRetryView(OutboxView):
    """Tries it again now, with a whole ladder before it."""

    @idempotent(subject=_subject)
    def post(self, request: Request, delivery_id: str) -> Response:
        require(request, "outbox.retry_delivery")
        given = validated(OptionalReason(data=request.data or {}))
        delivery = _delivery(delivery_id)
        if not deliveries_retry(ids=[delivery.pk], actor=actor_of(request), reason=given["reason"]):
            raise _refused(delivery)
        return Response(_document(request, _delivery(delivery_id)), headers=UNCACHED)


@descriptions.delivery_skip
class DeliverySkipView(OutboxView):
    """Gives it up; its aggregate goes on."""

    @idempotent(subject=_subject)
    def post(self, request: Request, delivery_id: str) -> Response:
        require(request, "outbox.skip_delivery")
        given = validated(Reason(data=request.data or {}))
        delivery = _delivery(delivery_id)
        if not deliveries_skip(ids=[delivery.pk], actor=actor_of(request), reason=given["reason"]):
            raise _refused(delivery)
        return Response(_document(request, _delivery(delivery_id)), headers=UNCACHED)


@descriptions.delivery_replace
class DeliveryReplaceView(OutboxView):
    """Publishes an edited copy of its event instead."""

    @idempotent(subject=_subject_of_edit)
    def post(self, request: Request, delivery_id: str) -> Response:
        require(request, "outbox.edit_delivery")
        given = validated(Replace(data=request.data or {}))
        delivery = _delivery(delivery_id)
        with told_as_problems():
            made = delivery_replace(
                delivery_id=delivery.pk, payload=given["payload"], actor=actor_of(request), reason=given["reason"]
            )
        return Response(replacement_document(made, readable=may_read_payload(request)), status=201, headers=UNCACHED)


def _delivery(text: str) -> Delivery:
    number = number_of(text)
    found = Delivery.objects.select_related("subscription").filter(pk=number).first() if number else None
    if found is None:
        raise DeliveryNotFound
    return found


def _document(request: Request, delivery: Delivery) -> dict[str, Any]:
    readable = may_read_payload(request)
    made = Replacement.objects.filter(original_id=delivery.event_id, subscriber=delivery.subscription_id).first()
    return {
        **delivery_document(delivery, readable=readable, max_retries=delivery.subscription.max_retries),
        "timeline": [attempt_document(one) for one in delivery.timeline.order_by("-id")[:ATTEMPTS_SHOWN]],
        "replacement": None if made is None else replacement_document(made, readable=readable),
    }


def _refused(delivery: Delivery) -> ActionRefused:
    if delivery.state == "resolved":
        return ActionRefused("The delivery is resolved already.")
    return ActionRefused("An earlier event of its aggregate waits; decide about that one first.")
