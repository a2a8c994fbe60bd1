"""Events and lanes in the console: records, seen and not changed."""

from __future__ import annotations

from typing import Any, Final

import orjson
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from operations.aggregate_pages import aggregate_link
from operations.console import RecordAdmin
from operations.life.links import life_link
from operations.life.sources import CORRELATION, Name
from operations.overview import Tone
from operations.page_values import NOTHING, badge, json_block, words
from outbox.masking import LARGEST_SHOWN, may_read_payload, payload_masked
from outbox.models import Lane, StoredEvent
from outbox.status import EventStatus, SubscriberStatus, events_statuses, worst_status

TONES: Final[dict[str, Tone]] = {
    "dead": "bad",
    "retrying": "warn",
    "blocked": "warn",
    "pending": "plain",
    "processed": "good",
    "skipped": "plain",
    "replaced": "plain",
    "resolved": "good",
}


@admin.register(StoredEvent)
class EventAdmin(RecordAdmin):
    """Events, newest first, each with its status, which is computed for the page that is shown."""

    list_display = ("id", "type", "aggregate_type", "about", "sequence", "status", "origin", "created_at")
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
        "about",
        "sequence",
        "lane",
        "schema_version",
        "origin",
        "correlation",
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

    @admin.display(description="aggregate id")
    def about(self, event: StoredEvent) -> SafeString | str:
        return aggregate_link(event.aggregate_type, event.aggregate_id)

    def life_of(self, record: StoredEvent) -> Name:
        return Name("event", str(record.pk))

    @admin.display(description="correlation id")
    def correlation(self, event: StoredEvent) -> SafeString | str:
        return life_link(CORRELATION, event.correlation_id, event.correlation_id) or NOTHING

    @admin.display(description="status")
    def status(self, event: StoredEvent) -> SafeString:
        word = worst_status(_statuses(event))
        return badge(words(word.value), TONES[word.value])

    @admin.display(description="subscribers")
    def subscribers(self, event: StoredEvent) -> SafeString:
        return format_html_join("", "<div>{} {} {}</div>", [_line(one) for one in _statuses(event)])

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        event = super().get_object(request, object_id, from_field)
        if event is not None:
            event.readable = may_read_payload(request)
            event.whole = "whole" in request.GET
        return event

    @admin.display(description="payload")
    def payload_block(self, event: StoredEvent) -> SafeString | str:
        payload = orjson.loads(event.payload)
        shown = payload if getattr(event, "readable", False) else payload_masked(payload)
        return json_block(shown, most=None if getattr(event, "whole", False) else LARGEST_SHOWN, whole="?whole=1")

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
