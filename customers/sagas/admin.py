"""The console's pages of protected changes: seen with their steps, and the stuck ones tried again."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from customers.models import Saga, SagaStep
from customers.models.sagas import OPEN
from customers.sagas.conf import saga_settings
from customers.sagas.retrying import sagas_retry
from operations.audit import actor_of
from operations.console import RecordAdmin
from operations.overview import Tone
from operations.page_values import NOTHING, badge, json_block, moment, number_of, words

_TONES: dict[str, Tone] = {"running": "plain", "undoing": "warn", "done": "good", "undone": "warn", "stuck": "bad"}
_STEP_TONES: dict[str, Tone] = {"done": "good", "refused": "bad", "undone": "warn", "undoing": "warn"}
_WORDS: dict[str, str] = {"stuck": "Stuck"}


class SagaStatusFilter(SimpleListFilter):
    """Those that are under way, turned back or stuck, each by a partial index, and those done: nearly all of them."""

    title = "status"
    parameter_name = "stands"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Under way"), ("stuck", "Stuck"), ("undone", "Undone"), ("done", "Done")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Saga]) -> QuerySet[Saga]:
        match self.value():
            case "open":
                return queryset.filter(status__in=OPEN)
            case "stuck" | "undone" | "done" as status:
                return queryset.filter(status=status)
            case _:
                return queryset


@admin.register(Saga)
class SagaAdmin(RecordAdmin):
    """Protected changes."""

    plural = "Protected changes"
    list_display = ("created_at", "action", "customer", "state", "why", "finished_at")
    list_filter = (SagaStatusFilter,)
    search_fields = ("id", "customer_id")
    search_help_text = "Its id or the customer's, whole"
    ordering = ("-pk",)
    defer_in_list = ("values",)
    actions = ("retry",)
    page_actions = ("retry",)
    fieldsets = (
        (None, {"fields": ("state", ("action", "customer"), "changes", "actor", ("created_at", "finished_at"))}),
        ("Steps", {"fields": ("step_table",)}),
        ("What went wrong", {"fields": ("problem", "last_error", ("attempts", "next_look"), "kept")}),
        ("Worker", {"fields": (("lease_owner", "lease_until"), "lease_token")}),
    )
    labels = {
        "lease_owner": "Worker that has it",
        "lease_until": "It has it until",
        "lease_token": "Times a worker took it",
        "attempts": "Failures since a step went on",
    }

    @admin.display(description="Status")
    def state(self, row: Saga) -> SafeString:
        return badge(_WORDS.get(row.status) or words(row.get_status_display()), _TONES.get(row.status, "plain"))

    @admin.display(description="Customer")
    def customer(self, row: Saga) -> SafeString:
        # Of a create that is not done there is no page.
        if row.action == Saga.Action.CREATE and row.status != Saga.Status.DONE:
            return format_html("{}", row.customer_id)
        address = reverse("admin:customers_customer_change", args=[row.customer_id])
        return format_html('<a href="{}">{}</a>', address, row.customer_id)

    @admin.display(description="Changes")
    def changes(self, row: Saga) -> str:
        return ", ".join(row.fields) or NOTHING

    @admin.display(description="Why")
    def why(self, row: Saga) -> str:
        failed = (row.failure or {}).get("failed") or {}
        return " ".join(filter(None, (failed.get("integration"), failed.get("code")))) or row.last_error_code or NOTHING

    @admin.display(description="Problem")
    def problem(self, row: Saga) -> SafeString | str:
        return json_block(row.failure)

    @admin.display(description="Last error")
    def last_error(self, row: Saga) -> str:
        return " ".join(filter(None, (row.last_error_class, row.last_error_code, row.last_error_message))) or NOTHING

    @admin.display(description="Next attempt")
    def next_look(self, row: Saga) -> str:
        return moment(row.next_attempt_at) if row.status in OPEN else NOTHING

    @admin.display(description="Personal data")
    def kept(self, row: Saga) -> str:
        if not row.values:
            return "None is kept with it."
        if row.status == Saga.Status.STUCK:
            days = saga_settings().stuck_retention if row.action == Saga.Action.CREATE else 0
            limit = f"for {number_of(days, 'day', 'days')} at most" if days else "without a limit of time"
            return f"What was asked for is kept with it, {limit}, until it is tried again and has ended."
        return "What was asked for is kept with it until it has ended."

    @admin.display(description="Steps")
    def step_table(self, row: Saga) -> SafeString:
        rows = format_html_join(
            "",
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            (
                (step.number, _name(step), _badge(step), _attempts(step), moment(step.finished_at), step.error_message)
                for step in row.steps.order_by("number")
            ),
        )
        return format_html(
            "<table><thead><tr><th>Number</th><th>Step</th><th>Status</th><th>Attempts</th><th>Ended</th>"
            "<th>Error</th></tr></thead><tbody>{}</tbody></table>",
            rows,
        )

    @admin.action(description="Try again now", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Saga]) -> None:
        chosen = list(queryset.values_list("pk", flat=True))
        count = len(sagas_retry(ids=chosen, actor=actor_of(request)))
        text = f"{number_of(count, 'protected change goes', 'protected changes go')} on."
        if left := len(chosen) - count:
            were = number_of(left, "was", "were")
            text += f" {were} left: ended, being worked on, or its customer is being changed by another one."
        self.message_user(request, text, messages.SUCCESS if count else messages.WARNING)

    def offers(self, request: HttpRequest, action: str, record: Saga) -> bool:
        return record.status == Saga.Status.STUCK or Saga.objects.waiting().filter(pk=record.pk).exists()

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.retry_saga")


def _name(step: SagaStep) -> str:
    return (
        f"{words(step.get_kind_display())} ({step.integration})" if step.integration else words(step.get_kind_display())
    )


def _attempts(step: SagaStep) -> str:
    return f"{step.attempts}, {step.undo_attempts} to undo" if step.undo_attempts else str(step.attempts)


def _badge(step: SagaStep) -> SafeString:
    return badge(words(step.get_status_display()), _STEP_TONES.get(step.status, "plain"))
