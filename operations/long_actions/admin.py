"""Operations in the console: their progress, what became of each item, the buttons that steer, and the dry run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from operations.audit import actor_of
from operations.console import RecordAdmin
from operations.errors import ProblemError
from operations.long_actions.access import may_do, may_steer
from operations.long_actions.documents import progress_document, result_lines
from operations.long_actions.errors import OperationNotFound
from operations.long_actions.kinds import kind_named
from operations.long_actions.plan_page import plan_page
from operations.long_actions.steering import VERBS, operation_steer
from operations.models import AuditEntry, ItemState, Operation, OperationItem
from operations.overview import Tone
from operations.page_values import badge
from operations.posted import posted_text

ITEMS_SHOWN: Final = 50
_TONES: Final[dict[str, Tone]] = {
    "planned": "plain",
    "running": "good",
    "paused": "warn",
    "cancelled": "plain",
    "completed": "good",
    "failed": "bad",
    "pending": "plain",
    "started": "warn",
    "waiting": "warn",
    "succeeded": "good",
    "skipped": "plain",
}
_OFFERED: Final[dict[str, tuple[str, ...]]] = {
    "planned": ("start", "cancel"),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
}


@admin.register(Operation)
class OperationAdmin(RecordAdmin):
    """Long actions, newest first."""

    change_list_template = "operations/operations.html"
    list_display = ("id", "kind", "state_badge", "progress", "odd", "reason", "actor", "created_at")
    list_display_links = ("id", "kind")
    list_filter = ("state",)
    search_fields = ("pk",)
    search_help_text = "Number of an operation"
    ordering = ("-pk",)
    defer_in_list = ("filter", "ineligible")

    @admin.display(description="state")
    def state_badge(self, operation: Operation) -> SafeString:
        return badge(operation.state, _tone(operation))

    @admin.display(description="progress")
    def progress(self, operation: Operation) -> SafeString:
        done = progress_document(operation)
        total = operation.eligible if done["items"] is None else done["items"]
        return format_html("{} % of {}", f"{done['percent']:g}", f"{total:,}")

    @admin.display(description="failed / skipped")
    def odd(self, operation: Operation) -> str:
        return f"{operation.failed:,} / {operation.skipped:,}"

    def get_urls(self) -> list[URLPattern]:
        own = [
            path("plan/", self.admin_site.admin_view(self.plan_view), name="operations_operation_plan"),
            path(
                "<int:operation_id>/steer/<str:verb>/",
                self.admin_site.admin_view(self.steer_view),
                name="operations_operation_steer",
            ),
        ]
        return own + super().get_urls()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"may_plan": may_steer(request, "plan"), **(extra_context or {})})

    def plan_view(self, request: HttpRequest) -> HttpResponse:
        """The dry run of a new operation, and the form that plans it."""
        return plan_page(request, self.admin_site.each_context(request))

    def steer_view(self, request: HttpRequest, operation_id: int, verb: str) -> HttpResponse:
        """One button."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        operation = Operation.objects.filter(pk=operation_id).first()
        if verb not in VERBS or operation is None:
            raise OperationNotFound
        if not _may(request, operation, verb):
            raise PermissionDenied
        try:
            operation_steer(
                verb=verb, operation_id=operation_id, actor=actor_of(request), note=posted_text(request, "note", 500)
            )
        except ProblemError as exc:
            self.message_user(request, exc.detail, messages.ERROR)
        return redirect(reverse("admin:operations_operation_change", args=[operation_id]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        operation: Operation | None = self.get_object(request, object_id)
        if operation is None:
            raise Http404
        chosen = request.GET.get("items", "")
        after = request.GET.get("after", "")
        items = _items(operation, chosen, after)
        is_live = operation.state == "running" or operation.in_flight > 0
        is_still = "still" in request.GET
        kind = kind_named(operation.kind)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Operation {operation.pk}",
            "opts": self.opts,
            "operation": operation,
            "kind_title": kind.title if kind else operation.kind,
            "tone": _tone(operation),
            "filter_text": json.dumps(operation.filter, ensure_ascii=False),
            "stop_percent": f"{operation.stop_error_rate * 100:g}",
            "progress": progress_document(operation),
            "result": result_lines(kind.result(operation)) if kind and operation.begun else [],
            "rest": max(0, (operation.items if operation.collected else operation.eligible) - operation.begun),
            "buttons": [verb for verb in _OFFERED.get(operation.state, ()) if _may(request, operation, verb)],
            # Who reads a page further down, or holds it still, is left alone: with a keyboard nobody gets to a button
            # within two seconds. The link that holds it still has the focus each time.
            "refresh": is_live and not after and not is_still,
            "still": is_live and is_still,
            "items": [(item, _TONES.get(item.state, "bad"), kind.item_url(item.key) if kind else "") for item in items],
            "next_after": items[-1].pk if len(items) == ITEMS_SHOWN else None,
            "chosen": chosen,
            "item_states": ["", *ItemState.values],
            "audit": _audit(request, operation),
        }
        return TemplateResponse(request, "operations/operation.html", context)


def _tone(operation: Operation) -> Tone:
    return "warn" if operation.state == "completed" and operation.failed else _TONES[operation.state]


def _items(operation: Operation, state: str, after: str) -> Sequence[OperationItem]:
    rows = OperationItem.objects.filter(operation=operation).defer("data")
    if state in ItemState.values:
        rows = rows.filter(state=state)
    if after.isascii() and after.isdigit() and len(after) < 19:
        rows = rows.filter(pk__gt=int(after))
    return list(rows.order_by("pk")[:ITEMS_SHOWN])


def _audit(request: HttpRequest, operation: Operation) -> Sequence[AuditEntry]:
    if not request.user.has_perm("operations.view_auditentry"):
        return []
    return list(AuditEntry.objects.filter(target=f"operation:{operation.pk}").order_by("-pk")[:20])


def _may(request: HttpRequest, operation: Operation, verb: str) -> bool:
    if not may_steer(request, verb):
        return False
    if verb not in ("start", "resume"):
        return True
    kind = kind_named(operation.kind)
    return kind is not None and may_do(request, kind)
