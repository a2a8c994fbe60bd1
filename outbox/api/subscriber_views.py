"""Subscribers over HTTP: the board, pause, limits, probe and publishing again."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from operations.audit import actor_of
from operations.idempotency.decorators import idempotent
from operations.serializers import query_values
from outbox.api import descriptions
from outbox.api.access import require, told_as_problems
from outbox.api.documents import subscriber_document
from outbox.api.inputs import Limits, Nothing, Pause, Republish
from outbox.api.views import UNCACHED, OutboxView, validated
from outbox.board import board_row, subscribers_board
from outbox.models import Subscription
from outbox.republishing import log_republish
from outbox.subscribers import subscriber_unknown
from outbox.subscriptions import breaker_try, subscription_limit, subscription_pause, subscription_resume


@descriptions.subscribers
class SubscribersView(OutboxView):
    """All subscribers in use."""

    def get(self, request: Request) -> Response:
        validated(Nothing(data=query_values(request)))
        return Response({"results": [subscriber_document(row) for row in subscribers_board()]}, headers=UNCACHED)


@descriptions.subscriber
class SubscriberView(OutboxView):
    """One subscriber."""

    def get(self, request: Request, name: str) -> Response:
        return _answer(name)

    @idempotent()
    def patch(self, request: Request, name: str) -> Response:
        require(request, "outbox.limit_subscription")
        given = validated(Limits(data=request.data))
        with told_as_problems():
            subscription_limit(name=name, **(_limits(name) | given), actor=actor_of(request))
        return _answer(name)


@descriptions.pause
class PauseView(OutboxView):
    """Gives it no events from the next batch on."""

    @idempotent()
    def post(self, request: Request, name: str) -> Response:
        require(request, "outbox.pause_subscription")
        given = validated(Pause(data=request.data or {}))
        with told_as_problems():
            subscription_pause(name=name, reason=given["reason"], until=given["until"], actor=actor_of(request))
        return _answer(name)


@descriptions.resume
class ResumeView(OutboxView):
    """Gives it events again, where it stopped."""

    @idempotent()
    def post(self, request: Request, name: str) -> Response:
        require(request, "outbox.pause_subscription")
        with told_as_problems():
            subscription_resume(name=name, actor=actor_of(request))
        return _answer(name)


@descriptions.probe
class ProbeView(OutboxView):
    """Lets an open breaker try now."""

    @idempotent()
    def post(self, request: Request, name: str) -> Response:
        require(request, "outbox.pause_subscription")
        with told_as_problems():
            breaker_try(name=name, actor=actor_of(request))
        return _answer(name)


@descriptions.republish
class RepublishView(OutboxView):
    """Gives it a range of the log again."""

    @idempotent()
    def post(self, request: Request, name: str) -> Response:
        require(request, "outbox.republish_subscription")
        given = validated(Republish(data=request.data or {}))
        with told_as_problems():
            found = log_republish(
                subscriber=name,
                first=given["first_position"],
                last=given["last_position"],
                actor=actor_of(request),
                reason=given["reason"],
                apply=not given["dry_run"],
            )
        return Response({"events": found.events, "aggregates": found.aggregates}, headers=UNCACHED)


def _answer(name: str) -> Response:
    with told_as_problems():
        return Response(subscriber_document(board_row(name)), headers=UNCACHED)


def _limits(name: str) -> dict[str, Any]:
    """The limits as they are, for a change of some of them."""
    values = Subscription.objects.filter(name=name).values("rate_limit", "concurrency", "keep_successes").first()
    if values is None:
        raise subscriber_unknown(name)
    return dict(values)
