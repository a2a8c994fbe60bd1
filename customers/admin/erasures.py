"""Erasures in the console: who asked for them, and what they still wait for."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from customers.models import Erasure
from operations.console import RecordAdmin
from operations.page_values import NOTHING, badge, moment, record_link


def erasure_words(erasure: Erasure) -> str:
    """How far an erasure has come, in one word or two."""
    return "Waits" if erasure.finished_at is None else f"Finished {moment(erasure.finished_at)}"


class ProgressFilter(SimpleListFilter):
    """Unfinished erasures apart from the others."""

    title = "progress"
    parameter_name = "progress"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("waits", "Waits for something")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Erasure]) -> QuerySet[Erasure]:
        return queryset.filter(finished_at__isnull=True) if self.value() == "waits" else queryset


@admin.register(Erasure)
class ErasureAdmin(RecordAdmin):
    """People who were erased; what still waits is gone through again every minute."""

    list_display = ("__str__", "progress", "missing", "requested_by", "requested_at")
    list_filter = (ProgressFilter,)
    search_fields = ("customer",)
    search_help_text = "Id of the customer, whole"
    fields = ("person", "progress", "missing", "requested_by", "requested_at", "passes", "next_pass_at", "finished_at")
    ordering = ("-requested_at", "-customer")

    @admin.display(description="Customer")
    def person(self, erasure: Erasure) -> SafeString | str:
        return record_link(erasure.customer, str(erasure.pk))

    @admin.display(description="Progress")
    def progress(self, erasure: Erasure) -> SafeString:
        return badge("Waits", "warn") if erasure.finished_at is None else badge("Finished", "good")

    @admin.display(description="Waits for")
    def missing(self, erasure: Erasure) -> SafeString | str:
        return format_html_join(" · ", "{}", ((one,) for one in erasure.waits_for)) or NOTHING
