"""The console's list of locks that are held."""

from __future__ import annotations

from django.contrib import admin

from operations.console import RecordAdmin
from operations.models import Lock
from operations.page_values import moment


@admin.register(Lock)
class LockAdmin(RecordAdmin):
    """Who holds what, since when, and how often others found it taken. A lock runs out or is given back by itself."""

    plural = "Locks"
    list_display = ("__str__", "holder", "taken_at", "runs_out", "contended")
    search_fields = ("key", "holder")
    search_help_text = "Key or holder, whole"
    fields = ("kind", "key", "holder", "token", ("taken_at", "runs_out"), "contended")
    ordering = ("-token",)
    labels = {"contended": "Times others found it taken"}

    @admin.display(description="Runs out")
    def runs_out(self, row: Lock) -> str:
        return moment(row.until, "when its holder is done")
