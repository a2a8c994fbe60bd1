"""Consumed messages that did not go through at once: records, seen and not changed."""

from __future__ import annotations

import base64
from typing import Any

import orjson
from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString

from operations.console import NOTHING, RecordAdmin, badge, json_block, words
from outbox.console.records import TONES
from outbox.masking import may_read_payload, payload_masked
from outbox.models import ParkedMessage


@admin.register(ParkedMessage)
class ParkedMessageAdmin(RecordAdmin):
    """Messages of Kafka that are retried, wait behind such a one, or are dead, newest first."""

    list_display = ("id", "consumer_group", "topic", "type", "aggregate_id", "status", "code", "attempts", "created_at")
    list_display_links = ("id",)
    list_filter = ("state",)
    search_fields = ("id", "event_id")
    search_help_text = "Number, or id of the event; whole"
    ordering = ("-id",)
    defer_in_list = ("key", "value", "headers", "traceback")
    fields = (
        "id",
        "status",
        "consumer_group",
        "topic",
        "partition",
        "offset",
        "event_id",
        "type",
        "aggregate_type",
        "aggregate_id",
        "attempts",
        "next_attempt_at",
        "error_class",
        "code",
        "message",
        "traceback",
        "redriven",
        "dead_lettered_at",
        "created_at",
        "updated_at",
        "resolution",
        "resolved_at",
        "resolved_by",
        "resolved_reason",
        "payload_block",
        "headers_block",
    )

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        parked = super().get_object(request, object_id, from_field)
        if parked is not None:
            parked.readable = may_read_payload(request)
        return parked

    @admin.display(description="status")
    def status(self, parked: ParkedMessage) -> SafeString:
        return badge(words(parked.state), TONES.get(parked.state, "plain"))

    @admin.display(description="payload")
    def payload_block(self, parked: ParkedMessage) -> SafeString | str:
        value = bytes(parked.value or b"")
        try:
            payload = orjson.loads(value)
        except orjson.JSONDecodeError:
            return f"{len(value)} bytes that are no JSON" if value else NOTHING
        if len(value) > 100_000:
            return f"{len(value)} bytes of JSON"
        return json_block(payload if getattr(parked, "readable", False) else payload_masked(payload))

    @admin.display(description="headers")
    def headers_block(self, parked: ParkedMessage) -> SafeString | str:
        texts = [(name, base64.b64decode(text or "").decode(errors="replace")) for name, text in parked.headers]
        return json_block(dict(texts))
