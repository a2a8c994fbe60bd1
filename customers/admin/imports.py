"""Imports of files in the console."""

from __future__ import annotations

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from customers.models import ImportRun
from operations.console import RecordAdmin
from operations.page_values import badge


@admin.register(ImportRun)
class ImportRunAdmin(RecordAdmin):
    """How far each file was imported, by ``manage.py import_customers``."""

    list_display = ("file_name", "state", "customers_created", "records_rejected", "started_at", "updated_at")
    fields = (
        "file_name",
        "format",
        "content",
        "state",
        "next_step",
        "records_done",
        "customers_created",
        "records_rejected",
        "started_at",
        "updated_at",
        "finished_at",
    )
    search_fields = ("content_sha256",)
    search_help_text = "SHA-256 of the file's content"
    ordering = ("-pk",)

    @admin.display(description="SHA-256 of the content")
    def content(self, run: ImportRun) -> str:
        return run.content_sha256

    @admin.display(description="What to do")
    def next_step(self, run: ImportRun) -> SafeString:
        if run.finished_at is None:
            return format_html("If nobody is at it now, the same command goes on: {}", _command(run))
        done = format_html(
            'Its <a href="{}">customers</a> reach the integrations after what is more urgent.',
            reverse("admin:customers_customer_changelist"),
        )
        if not run.records_rejected:
            return done
        rejected = (
            "{} Beside the file, or where --rejected said, {}.rejected.ndjson names what was rejected, each with its "
            "line and why: mend those in a file of their own and import that."
        )
        return format_html(rejected, done, run.file_name)

    @admin.display(description="State")
    def state(self, run: ImportRun) -> SafeString:
        return badge("Unfinished", "warn") if run.finished_at is None else badge("Finished", "good")


def _command(run: ImportRun) -> SafeString:
    return format_html("<code>manage.py import_customers {}</code>", run.file_name)
