"""Events, deliveries and subscribers in the console: records, seen and not changed."""

from __future__ import annotations

from typing import Any, Final

import orjson
from django.contrib import admin
from django.db.models import Count, Max, Min, QuerySet, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from operations.console import NOTHING, RecordAdmin, WordsFilter, badge, json_block, words
from operations.overview import Tone
from outbox.models import Delivery, Lane, StoredEvent, Subscription
from outbox.status import EventStatus, SubscriberStatus, events_statuses, worst_status

TONES: Final[dict[str, Tone]] = {
    "dead": "bad",
    "retrying": "warn",
    "blocked": "warn",
    "pending": "plain",
    "processed": "good",
    "resolved": "good",
}


@admin.register(StoredEvent)
class EventAdmin(RecordAdmin):
    """Events, newest first, each with its status, which is computed for the page that is shown."""

    list_display = ("id", "type", "aggregate_type", "aggregate_id", "sequence", "status", "origin", "created_at")
    list_display_links = ("id",)
    search_fields = ("id", "uid")
    search_help_text = "Id or uid, or the id of an aggregate as type:id; whole"
    ordering = ("-id",)
    defer_in_list = ("payload", "headers")
    fields = (
        "id",
        "uid",
        "status",
        "subscribers",
        "topic",
        "type",
        "aggregate_type",
        "aggregate_id",
        "sequence",
        "lane",
        "schema_version",
        "origin",
        "correlation_id",
        "causation_id",
        "traceparent",
        "created_at",
        "payload_block",
        "headers_block",
    )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        kind, colon, name = search_term.strip().partition(":")
        if colon:
            found = queryset.filter(aggregate_type=kind, aggregate_id=name)
            # By the index of the aggregate; the order by id would be taken for a walk over the whole table.
            return found.order_by("aggregate_type", "aggregate_id", "-sequence"), False
        return super().get_search_results(request, queryset, search_term)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        rows = list(changelist.result_list)
        statuses = events_statuses([row.pk for row in rows])
        for row in rows:
            row.statuses = statuses.get(row.pk, [])
        changelist.result_list = rows
        return changelist

    @admin.display(description="status")
    def status(self, event: StoredEvent) -> SafeString:
        word = worst_status(_statuses(event))
        return badge(words(word.value), TONES[word.value])

    @admin.display(description="subscribers")
    def subscribers(self, event: StoredEvent) -> SafeString:
        return format_html_join("", "<div>{} {} {}</div>", [_line(one) for one in _statuses(event)])

    @admin.display(description="payload")
    def payload_block(self, event: StoredEvent) -> SafeString | str:
        return json_block(orjson.loads(event.payload))

    @admin.display(description="headers")
    def headers_block(self, event: StoredEvent) -> SafeString | str:
        return json_block(orjson.loads(event.headers))


def _statuses(event: StoredEvent) -> list[SubscriberStatus]:
    if not hasattr(event, "statuses"):
        event.statuses = events_statuses([event.pk]).get(event.pk, [])  # type: ignore[attr-defined]
    found: list[SubscriberStatus] = getattr(event, "statuses")  # noqa: B009 - put there for the page
    return found


def _line(one: SubscriberStatus) -> tuple[str, SafeString, str]:
    parts = []
    if one.status is EventStatus.PROCESSED and one.processed_at is not None:
        parts.append(f"by {one.processed_at:%Y-%m-%d %H:%M:%S} UTC")
    if one.attempts and one.status is not EventStatus.PROCESSED:
        parts.append(f"attempt {one.attempts}: {one.message}")
    if one.next_attempt_at is not None:
        parts.append(f"again at {one.next_attempt_at:%H:%M:%S} UTC")
    return one.subscriber, badge(words(one.status.value), TONES[one.status.value]), ", ".join(parts)


@admin.register(Delivery)
class DeliveryAdmin(RecordAdmin):
    """Deliveries that did not go through at once, newest first."""

    list_display = (
        "id",
        "subscription_id",
        "type",
        "aggregate_id",
        "sequence",
        "state_badge",
        "attempts",
        "code",
        "next_attempt_at",
        "created_at",
    )
    list_display_links = ("id",)
    list_filter = (("state", WordsFilter),)
    search_fields = ("id", "event_id")
    search_help_text = "Id of the delivery or of the event, whole"
    ordering = ("-id",)
    defer_in_list = ("envelope", "traceback", "message")
    fields = (
        "id",
        "subscription",
        "state_badge",
        "event_id",
        "position",
        "type",
        "topic",
        "aggregate_type",
        "aggregate_id",
        "sequence",
        "lane",
        "attempts",
        "next_attempt_at",
        "error_class",
        "code",
        "message",
        "timeline_block",
        "traceback",
        "fingerprint",
        "envelope_block",
        "created_at",
        "updated_at",
        "resolved_at",
    )

    @admin.display(description="state")
    def state_badge(self, delivery: Delivery) -> SafeString:
        return badge(words(delivery.state), TONES[delivery.state])

    @admin.display(description="attempts that failed")
    def timeline_block(self, delivery: Delivery) -> SafeString:
        attempts = delivery.timeline.order_by("-id")[:50]
        return format_html_join(
            "",
            "<div>{} UTC: attempt {}, {} {}: {}</div>",
            [
                (f"{one.started_at:%Y-%m-%d %H:%M:%S}", one.number, one.error_class, one.code, one.message[:200])
                for one in attempts
            ],
        )

    @admin.display(description="event")
    def envelope_block(self, delivery: Delivery) -> SafeString | str:
        return json_block(delivery.envelope)


@admin.register(Subscription)
class SubscriptionAdmin(RecordAdmin):
    """Subscribers: whether they go on, and how far each lane is."""

    list_display = ("name", "state", "paused_reason", "breaker_failures", "breaker_until", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    fields = (
        "name",
        "state",
        "which_topics",
        "max_retries",
        "paused_at",
        "paused_until",
        "paused_reason",
        "breaker_failures",
        "breaker_until",
        "breaker_message",
        "created_at",
        "lanes",
    )

    @admin.display(description="state")
    def state(self, subscription: Subscription) -> SafeString:
        if not subscription.active:
            return badge("Not listed", "plain")
        if subscription.paused_at is not None:
            return badge("Paused", "warn")
        return badge("Away", "bad") if subscription.breaker_failures else badge("Active", "good")

    @admin.display(description="topics")
    def which_topics(self, subscription: Subscription) -> str:
        return "all" if subscription.topics is None else ", ".join(subscription.topics)

    @admin.display(description="lanes")
    def lanes(self, subscription: Subscription) -> SafeString:
        found = Lane.objects.filter(subscription=subscription).aggregate(
            lanes=Count("pk"), first=Min("cursor"), last=Max("cursor"), processed=Sum("processed"), errors=Sum("errors")
        )
        address = (
            f"{reverse('admin:outbox_lane_changelist')}?{urlencode({'subscription__name__exact': subscription.pk})}"
        )
        text = "{} lanes, read up to position {} to {}; {} deliveries, {} failed attempts"
        return format_html('<a href="{}">' + text + "</a>", address, *found.values())


@admin.register(Lane)
class LaneAdmin(RecordAdmin):
    """Lanes: who reads which share of the log for whom, and how far."""

    list_display = ("__str__", "cursor", "holder", "lease_until", "moved_at", "leases_lost", "processed", "errors")
    list_filter = ("subscription",)
    ordering = ("subscription_id", "lane")
    list_per_page = 64

    @admin.display(description="held by")
    def holder(self, lane: Lane) -> str:
        return lane.owner or NOTHING

    @admin.display(description="leases lost")
    def leases_lost(self, lane: Lane) -> int:
        return lane.strikes
