"""Imports of files in the console."""

from __future__ import annotations

from django.contrib import admin
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

    @admin.display(description="State")
    def state(self, run: ImportRun) -> SafeString:
        return badge("Unfinished", "warn") if run.finished_at is None else badge("Finished", "good")
