"""Differences between both sides in the console: what differs by field, the repair beside it, and the decision."""

from __future__ import annotations

import json
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.defaultfilters import truncatechars
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from customers.errors import CustomerError
from customers.models import Drift, ReconcileRun
from customers.reconciling.compare_page import compare_page, may_compare
from customers.reconciling.decisions import Declined, drifts_accept, drifts_decline
from customers.reconciling.documents import drift_fields
from customers.sync.readable_admin import ReadableAdmin
from operations.audit import actor_of
from operations.console import WordsFilter
from operations.models import AuditEntry
from operations.overview import Tone
from operations.page_values import NOTHING, badge, json_block, number_of, words
from operations.posted import posted_text
from outbox.masking import may_read_payload

REASON_LENGTH: Final = 500
_TONES: Final[dict[str, Tone]] = {
    Drift.Status.OPEN: "warn",
    Drift.Status.ACCEPTED: "plain",
    Drift.Status.REPAIRED: "good",
    Drift.Status.DECLINED: "plain",
    Drift.Status.GONE: "plain",
}


class WaitsFilter(SimpleListFilter):
    """Open ones, by who mends them: each by a partial index."""

    title = "what mends it"
    parameter_name = "waits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("person", "A person"), ("rule", "The next comparison")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Drift]) -> QuerySet[Drift]:
        match self.value():
            case "person":
                return queryset.filter(status=Drift.Status.OPEN, safe=False)
            case "rule":
                return queryset.filter(status=Drift.Status.OPEN, safe=True)
        return queryset


@admin.register(Drift)
class DriftAdmin(ReadableAdmin):
    """What comparisons of both sides found."""

    plural = "differences between both sides"
    change_list_template = "customers/drifts.html"
    list_display = ("id", "what", "about", "fields_text", "repair_text", "tone", "seen_at")
    list_select_related = ("customer",)
    list_filter = (WaitsFilter, ("status", WordsFilter), ("kind", WordsFilter))
    search_fields = ("pk", "customer__pk")
    search_help_text = "Number of the difference, or the customer's id"
    ordering = ("-pk",)
    defer_in_list = ("outcome",)
    actions = ("accept", "decline")

    @admin.display(description="Difference")
    def what(self, row: Drift) -> SafeString:
        address = reverse("admin:customers_drift_change", args=[row.pk])
        return format_html('<a href="{}">{}</a>', address, _sentence(row.get_kind_display()))

    @admin.display(description="Customer and record")
    def about(self, row: Drift) -> SafeString | str:
        if row.customer is None:
            return row.remote_id or NOTHING
        return format_html(
            '{} <span class="quiet">{}</span>', self.whose(row, row.customer), row.remote_id or "no record"
        )

    @admin.display(description="What differs")
    def fields_text(self, row: Drift) -> str:
        fields = drift_fields(row, readable=getattr(row, "readable", False))
        shown = [f"{one['field']}: {_short(one['ours'])} ≠ {_short(one['theirs'])}" for one in fields]
        return "; ".join(shown[:3]) + ("; …" if len(shown) > 3 else "") if shown else row.detail

    @admin.display(description="Repair")
    def repair_text(self, row: Drift) -> SafeString:
        text = _sentence(row.get_repair_display())
        why = "safe by rule" if row.safe else row.why_not
        return format_html('{} <span class="quiet">{}</span>', text, truncatechars(why, 90))

    @admin.display(description="Status")
    def tone(self, row: Drift) -> SafeString:
        return badge(words(row.get_status_display()), _TONES.get(Drift.Status(row.status), "plain"))

    @admin.action(description="Accept: have them repaired", permissions=["accept"])
    def accept(self, request: HttpRequest, queryset: QuerySet[Drift]) -> None:
        self._decide(request, list(queryset.values_list("pk", flat=True)), "accept")

    @admin.action(description="Decline: leave them as they are", permissions=["decline"])
    def decline(self, request: HttpRequest, queryset: QuerySet[Drift]) -> None:
        self._decide(request, list(queryset.values_list("pk", flat=True)), "decline")

    def has_accept_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.accept_drift")

    def has_decline_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.decline_drift")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.do_view)
        return [
            path("<int:drift_id>/do/<str:verb>/", view, name="customers_drift_do"),
            path("compare/", self.admin_site.admin_view(self.compare_view), name="customers_drift_compare"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {"may_compare": may_compare(request), "last_run": _last_run(), **(extra_context or {})}
        return super().changelist_view(request, context)

    def compare_view(self, request: HttpRequest) -> HttpResponse:
        """The page that begins a comparison."""
        return compare_page(request, self.admin_site.each_context(request))

    def do_view(self, request: HttpRequest, drift_id: int, verb: str) -> HttpResponse:
        """One button of the page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if verb not in ("accept", "decline") or drift_id >= 2**63:
            raise Http404
        if not request.user.has_perm(f"customers.{verb}_drift"):
            raise PermissionDenied
        if not Drift.objects.filter(pk=drift_id).exists():
            raise Http404
        self._decide(request, [drift_id], verb, reason=posted_text(request, "reason", REASON_LENGTH))
        return redirect(reverse("admin:customers_drift_change", args=[drift_id]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        drift: Drift | None = self.get_object(request, object_id)
        if drift is None:
            raise Http404
        return TemplateResponse(request, "customers/drift.html", self._context(request, drift))

    def _context(self, request: HttpRequest, drift: Drift) -> dict[str, Any]:
        is_open = drift.status == Drift.Status.OPEN
        return {
            **self.admin_site.each_context(request),
            "title": _sentence(drift.get_kind_display()),
            "drift": drift,
            "customer": self.whose(drift, drift.customer) if drift.customer else "none here",
            "tone": _TONES.get(Drift.Status(drift.status), "plain"),
            "status": words(drift.get_status_display()),
            "repair": _sentence(drift.get_repair_display()),
            "fields": [
                (one["field"], json_block(one["base"]), json_block(one["ours"]), json_block(one["theirs"]))
                for one in drift_fields(drift, readable=may_read_payload(request))
            ],
            "masked": not may_read_payload(request),
            "may_accept": is_open and bool(drift.repair) and self.has_accept_permission(request),
            "may_decline": is_open and self.has_decline_permission(request),
            "is_open": is_open,
            "reason_length": REASON_LENGTH,
            "audit": AuditEntry.objects.filter(target=f"drift:{drift.pk}").order_by("-pk")[:20],
        }

    def _decide(self, request: HttpRequest, ids: list[int], verb: str, *, reason: str = "") -> None:
        actor = actor_of(request)
        try:
            if verb == "decline":
                self._declined(request, drifts_decline(ids=ids, actor=actor, reason=reason))
                return
            done = drifts_accept(ids=ids, actor=actor, reason=reason)
        except CustomerError as exc:
            self.message_user(request, f"{exc.detail} Nothing was done.", messages.ERROR)
            return
        text = f"{number_of(len(done.ids), 'difference is', 'differences are')} being repaired"
        address = reverse("admin:operations_operation_change", args=[done.operation.pk])
        link = format_html('{} by <a href="{}">operation {}</a>.', text, address, done.operation.pk)
        self.message_user(request, link, messages.SUCCESS)
        if left := len(set(ids)) - len(done.ids):
            text = f"{number_of(left, 'was', 'were')} left: decided before, or not to be mended from here."
            self.message_user(request, text, messages.WARNING)

    def _declined(self, request: HttpRequest, done: Declined) -> None:
        count = len(done.ids)
        text = (
            f"{number_of(count, 'difference is', 'differences are')} left as {'it is' if count == 1 else 'they are'}."
        )
        self.message_user(request, text, messages.SUCCESS)
        if done.conflicts:
            address = reverse("admin:customers_conflict_change", args=[done.conflicts[0].pk])
            many = len(done.conflicts)
            text = f"{number_of(many, 'conflict', 'conflicts')} about the same {'stays' if many == 1 else 'stay'} open"
            link = format_html('{}: <a href="{}">what settles it</a>.', text, address)
            self.message_user(request, link, messages.WARNING)


def _last_run() -> ReconcileRun | None:
    return ReconcileRun.objects.filter(complete=True).order_by("-pk").first()


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short(value: Any) -> str:
    if value is None:
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return truncatechars(text.encode(errors="backslashreplace").decode(), 40)
