"""Alerts in the console: records, seen and not changed."""

from __future__ import annotations

from django.contrib import admin
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from operations.console import RecordAdmin
from operations.models import Alert, AlertNotice
from operations.page_values import badge


@admin.register(Alert)
class AlertAdmin(RecordAdmin):
    """What is or was wrong, newest first, and who was told."""

    list_display = ("id", "title", "state", "level", "source", "raised_at", "seen_at", "ended_at")
    list_display_links = ("id", "title")
    search_fields = ("pk",)
    search_help_text = "Number of an alert"
    ordering = ("-pk",)
    fields = ("title", "state", "level", "message", "source", "key", "raised_at", "seen_at", "ended_at", "notices")

    @admin.display(description="state")
    def state(self, alert: Alert) -> SafeString:
        if alert.ended_at is not None:
            return badge("over", "good")
        return badge("open", "bad" if alert.level == "critical" else "warn")

    @admin.display(description="notices")
    def notices(self, alert: Alert) -> SafeString:
        rows = AlertNotice.objects.filter(alert=alert).order_by("-pk")[:50]
        return format_html_join(
            "",
            "<div>{} UTC: {} by {}: {} {}</div>",
            [(f"{row.created_at:%Y-%m-%d %H:%M:%S}", row.kind, row.channel, row.state, row.error) for row in rows],
        )
