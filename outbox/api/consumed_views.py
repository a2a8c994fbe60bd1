"""Consumed messages over HTTP: those that did not go through at once, and what a person can do with dead ones."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from rest_framework.request import Request
from rest_framework.response import Response

from operations.audit import actor_of
from operations.idempotency.decorators import idempotent
from operations.serializers import query_values
from outbox.api import consumed_descriptions as descriptions
from outbox.api.access import require
from outbox.api.consumed_documents import consumed_document
from outbox.api.errors import ActionRefused, MessageNotFound
from outbox.api.inputs import ConsumedQuery, OptionalReason, Reason
from outbox.api.views import UNCACHED, OutboxView, number_of, validated
from outbox.consuming.redriving import consumed_discard, consumed_retry
from outbox.masking import may_read_payload
from outbox.models import ParkedMessage

_FILTERS: Final = {"group": "consumer_group", "topic": "topic", "code": "code", "fingerprint": "fingerprint"}


@descriptions.consumed
class ConsumedView(OutboxView):
    """Consumed messages of one state, newest first."""

    def get(self, request: Request) -> Response:
        query = validated(ConsumedQuery(data=query_values(request)))
        wanted = {column: query[name] for name, column in _FILTERS.items() if name in query}
        # By outbox_parked_state_idx, or by outbox_parked_kind for one kind of the dead.
        rows = ParkedMessage.objects.filter(state=query["state"], **wanted)
        if "cursor" in query:
            rows = rows.filter(pk__lt=query["cursor"])
        found = list(rows.order_by("-pk").defer("value", "headers", "traceback")[: query["page_size"] + 1])
        headers = dict(UNCACHED)
        if len(found) > query["page_size"]:
            found = found[: query["page_size"]]
            more = request.query_params.dict() | {"cursor": str(found[-1].pk)}
            headers["Link"] = f'<{request.build_absolute_uri(request.path)}?{urlencode(more)}>; rel="next"'
        return Response({"results": [consumed_document(one) for one in found]}, headers=headers)


@descriptions.one_consumed
class OneConsumedView(OutboxView):
    """One consumed message with its payload."""

    def get(self, request: Request, message_id: str) -> Response:
        return Response(_whole(request, _message(message_id)), headers=UNCACHED)


@descriptions.consumed_redrive
class ConsumedRedriveView(OutboxView):
    """Has a dead one handled again."""

    @idempotent()
    def post(self, request: Request, message_id: str) -> Response:
        require(request, "outbox.redrive_parkedmessage")
        given = validated(OptionalReason(data=request.data or {}))
        parked = _message(message_id)
        if not consumed_retry(ids=[parked.pk], actor=actor_of(request), reason=given["reason"]):
            raise ActionRefused("The message is not dead.")
        return Response(_whole(request, _message(message_id)), headers=UNCACHED)


@descriptions.consumed_discard
class ConsumedDiscardView(OutboxView):
    """Gives a dead one up."""

    @idempotent()
    def post(self, request: Request, message_id: str) -> Response:
        require(request, "outbox.discard_parkedmessage")
        given = validated(Reason(data=request.data or {}))
        parked = _message(message_id)
        if not consumed_discard(ids=[parked.pk], actor=actor_of(request), reason=given["reason"]):
            raise ActionRefused("The message is not dead.")
        return Response(_whole(request, _message(message_id)), headers=UNCACHED)


def _message(text: str) -> ParkedMessage:
    number = number_of(text)
    found = ParkedMessage.objects.filter(pk=number).first() if number else None
    if found is None:
        raise MessageNotFound
    return found


def _whole(request: Request, parked: ParkedMessage) -> dict[str, Any]:
    return consumed_document(parked, readable=may_read_payload(request), whole=True)
