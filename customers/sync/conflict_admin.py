"""Conflicts in the console: what each side holds, and the decision on the same page."""

from __future__ import annotations

import json
from typing import Any, Final

from django.contrib import admin, messages
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
from customers.models import Conflict, SyncState
from customers.sync.advice import conflict_advice, conflict_holder
from customers.sync.looking_again import states_look_again
from customers.sync.readable_admin import ReadableAdmin
from customers.sync.resolutions import Side, conflict_resolve, conflict_sides, conflicts_resolve
from operations.audit import actor_of
from operations.console import WordsFilter
from operations.life.links import life_url
from operations.life.sources import Name
from operations.models import AuditEntry
from operations.page_values import NOTHING, badge, json_block, number_of, record_link, words
from operations.posted import posted_text
from outbox.masking import may_read_payload

REASON_LENGTH: Final = 500
LOOK_AGAIN: Final = "look-again"
_TAKES: Final[dict[str, Side]] = {"take-ours": "ours", "take-theirs": "theirs"}


@admin.register(Conflict)
class ConflictAdmin(ReadableAdmin):
    """What rules cannot decide."""

    list_display = ("id", "customer_link", "question", "which_field", "here", "there", "tone", "opened_at")
    list_select_related = ("state__customer",)
    list_filter = (("status", WordsFilter),)
    search_fields = ("state__pk", "pk", "state__customer__pk")
    search_help_text = "Number of the conflict or of its sync state, or the customer's id"
    ordering = ("-pk",)
    defer_in_list = ("base", "detail")
    actions = ("take_ours", "take_theirs")

    @admin.display(description="Customer")
    def customer_link(self, row: Conflict) -> SafeString | str:
        return self.whose(row, row.state.customer) if row.state.customer else record_link(row.state)

    @admin.display(description="Question")
    def question(self, row: Conflict) -> SafeString:
        address = reverse("admin:customers_conflict_change", args=[row.pk])
        return format_html('<a href="{}">{}</a>', address, _sentence(row.get_kind_display()))

    @admin.display(description="Field")
    def which_field(self, row: Conflict) -> str:
        return row.field or NOTHING

    @admin.display(description="Here")
    def here(self, row: Conflict) -> str:
        return _short(self.read(row, row.ours))

    @admin.display(description="There")
    def there(self, row: Conflict) -> str:
        return _short(self.read(row, row.theirs))

    @admin.display(description="Status")
    def tone(self, row: Conflict) -> SafeString:
        return badge(words(row.get_status_display()), "bad" if row.status == Conflict.Status.OPEN else "good")

    @admin.action(description="Resolve: keep what is here", permissions=["resolve"])
    def take_ours(self, request: HttpRequest, queryset: QuerySet[Conflict]) -> None:
        self._resolve_all(request, queryset, "ours")

    @admin.action(description="Resolve: take what is there", permissions=["resolve"])
    def take_theirs(self, request: HttpRequest, queryset: QuerySet[Conflict]) -> None:
        self._resolve_all(request, queryset, "theirs")

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.resolve_conflict")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.do_view)
        return [path("<int:conflict_id>/do/<str:verb>/", view, name="customers_conflict_do"), *super().get_urls()]

    def do_view(self, request: HttpRequest, conflict_id: int, verb: str) -> HttpResponse:
        """One button of the page."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        conflict = Conflict.objects.filter(pk=conflict_id).first() if conflict_id < 2**63 else None
        if conflict is None or verb not in (*_TAKES, LOOK_AGAIN):
            raise Http404
        permission = "look_again_syncstate" if verb == LOOK_AGAIN else "resolve_conflict"
        if not request.user.has_perm(f"customers.{permission}"):
            raise PermissionDenied
        level, text = _do(request, conflict, verb)
        self.message_user(request, text, level)
        return redirect(reverse("admin:customers_conflict_change", args=[conflict_id]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        conflict: Conflict | None = self.get_object(request, object_id)
        if conflict is None:
            raise Http404
        return TemplateResponse(request, "customers/conflict.html", self._context(request, conflict))

    def _context(self, request: HttpRequest, conflict: Conflict) -> dict[str, Any]:
        state, is_open = conflict.state, conflict.status == Conflict.Status.OPEN
        return {
            **self.admin_site.each_context(request),
            "title": _sentence(str(conflict)),
            "conflict": conflict,
            "state": state,
            "customer": self.whose(conflict, state.customer),
            "life_url": life_url(
                Name("customer", str(state.customer_id)) if state.customer_id else Name("remote", str(state.remote_id))
            ),
            "is_open": is_open,
            "sides": [
                ("Agreed before", json_block(self.read(conflict, conflict.base))),
                ("Here", json_block(self.read(conflict, conflict.ours))),
                ("There", json_block(self.read(conflict, conflict.theirs))),
            ],
            "masked": not may_read_payload(request),
            "advice": conflict_advice(conflict.kind),
            "holder": conflict_holder(conflict) if is_open else None,
            "takes": conflict_sides(conflict) if is_open else (),
            "may_resolve": self.has_resolve_permission(request),
            "may_look_again": is_open and request.user.has_perm("customers.look_again_syncstate"),
            "reason_length": REASON_LENGTH,
            "audit": AuditEntry.objects.filter(target=f"conflict:{conflict.pk}").order_by("-pk")[:20],
        }

    def _resolve_all(self, request: HttpRequest, queryset: QuerySet[Conflict], take: Side) -> None:
        done = conflicts_resolve(ids=list(queryset.values_list("pk", flat=True)), take=take, actor=actor_of(request))
        if done.resolved:
            text = f"{number_of(done.resolved, 'conflict is', 'conflicts are')} resolved."
            self.message_user(request, text, messages.SUCCESS)
        if done.refused:
            text = f"{number_of(done.refused, 'was', 'were')} left: resolved before, or not to be decided so."
            self.message_user(request, text, messages.WARNING)


def open_conflicts_link(state: SyncState) -> SafeString | str:
    """A link to what a person must decide about a sync state; empty when that is nothing."""
    # A state in sync may have an open one, too: a proposal holds nothing up.
    count = state.conflicts.open().count()
    query = {"q": str(state.customer_id or state.pk), "status__exact": "open"}
    address = reverse("admin:customers_conflict_changelist", query=query)
    text = number_of(count, "open conflict", "open conflicts")
    return format_html('<a href="{}">{}</a>.', address, text) if count else ""


def _do(request: HttpRequest, conflict: Conflict, verb: str) -> tuple[int, str]:
    """Carry one button out: level and text of the message."""
    reason = posted_text(request, "reason", REASON_LENGTH)
    if verb == LOOK_AGAIN:
        states_look_again(ids=[conflict.state_id], actor=actor_of(request), reason=reason)
        return messages.SUCCESS, "It is looked at again. If the question has answered itself, it closes."
    take = _TAKES[verb]
    try:
        conflict_resolve(conflict_id=conflict.pk, take=take, actor=actor_of(request), reason=reason)
    except CustomerError as exc:
        return messages.ERROR, f"{exc.detail} Nothing was done."
    held = "What is here holds" if take == "ours" else "What is there holds"
    return messages.SUCCESS, f"{held}; the other side gets it now."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short(value: Any) -> str:
    """A value in a cell of a list."""
    if value is None:
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return truncatechars(text.encode(errors="backslashreplace").decode(), 80) or '""'
