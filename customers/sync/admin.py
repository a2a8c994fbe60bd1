"""The console's pages of the synchronisation: states, requests, conflicts, webhooks, accounts."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.db.transaction import atomic
from django.http import HttpRequest
from django.utils.safestring import SafeString

from customers.models import Conflict, SyncAccount, SyncRequest, SyncState, Webhook
from operations.audit import actor_of, audit_record
from operations.console import RecordAdmin, badge, json_block
from operations.overview import Tone
from outbox.wakeup import wake

_TONES: dict[str, Tone] = {
    "in_sync": "good",
    "pending": "plain",
    "retrying": "warn",
    "conflict": "bad",
    "failed": "bad",
    "orphaned": "bad",
    "deleted": "plain",
}


class RequestOutcomeFilter(SimpleListFilter):
    """Requests that are in flight, or that ended in another way than by success: each by a partial index."""

    title = "outcome"
    parameter_name = "ended"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        odd = (SyncRequest.Outcome.ADOPTED, SyncRequest.Outcome.REFUSED, SyncRequest.Outcome.ABANDONED)
        return [("in_flight", "In flight"), *((outcome.value, str(outcome.label)) for outcome in odd)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[SyncRequest]) -> QuerySet[SyncRequest]:
        if self.value() == "in_flight":
            return queryset.filter(resolved_at__isnull=True)
        return queryset.filter(outcome=self.value()) if self.value() else queryset


class WebhookOutcomeFilter(SimpleListFilter):
    """Webhooks that wait or were ignored: each by a partial index."""

    title = "outcome"
    parameter_name = "ended"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("pending", "Waiting"), ("ignored", "Ignored")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> QuerySet[Webhook]:
        if self.value() == "pending":
            return queryset.filter(processed_at__isnull=True)
        return queryset.filter(outcome=Webhook.Outcome.IGNORED) if self.value() == "ignored" else queryset


@admin.register(SyncState)
class SyncStateAdmin(RecordAdmin):
    """One customer in one integration."""

    list_display = ("id", "integration", "remote_id", "customer", "state", "attempts", "last_error_code", "dirty_at")
    list_select_related = ("customer",)
    list_filter = ("status",)
    search_fields = ("remote_id", "customer__pk", "pk")
    search_help_text = "Remote id, customer's id or number, whole"
    ordering = ("-pk",)
    defer_in_list = ("base", "last_error_message")
    actions = ("look_again",)
    fields = (
        ("integration", "account", "livemode"),
        "remote_id",
        "customer",
        "state",
        "base_block",
        "base_hash",
        ("dirty_at", "priority", "poke_count"),
        ("attempts", "next_attempt_at"),
        ("last_error_class", "last_error_code"),
        "last_error_message",
        ("lease_owner", "lease_token", "lease_until"),
        ("last_success_at", "created_at", "updated_at"),
    )

    @admin.display(description="Status")
    def state(self, row: SyncState) -> SafeString:
        return badge(row.get_status_display(), _TONES.get(row.status, "plain"))

    @admin.display(description="Base")
    def base_block(self, row: SyncState) -> SafeString:
        return json_block(row.base)

    @admin.action(description="Look again now", permissions=["look_again"])
    def look_again(self, request: HttpRequest, queryset: QuerySet[SyncState]) -> None:
        ids = list(queryset.values_list("pk", flat=True))
        with atomic():
            count = SyncState.objects.filter(pk__in=ids).look_again()
            for pk in ids:
                audit_record(actor=actor_of(request), action="syncstate.poked", target=f"syncstate:{pk}")
        wake("sync")
        self.message_user(request, f"{count} sync states will be looked at again.", messages.SUCCESS)

    def has_look_again_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.look_again_syncstate")


@admin.register(SyncRequest)
class SyncRequestAdmin(RecordAdmin):
    """Writing requests, as they were sent and how they ended."""

    list_display = ("id", "state", "method", "outcome", "sends", "first_sent_at", "resolved_at", "error_code")
    list_select_related = ("state",)
    list_filter = (RequestOutcomeFilter,)
    search_fields = ("uid", "state__pk")
    search_help_text = "Idempotency key without its generation, or number of the sync state"
    ordering = ("-pk",)
    defer_in_list = ("body", "fields", "error_message")
    fields = (
        "state",
        ("method", "key"),
        "body_block",
        ("first_sent_at", "last_sent_at", "sends"),
        ("outcome", "resolved_at"),
        ("error_code", "error_message"),
    )

    @admin.display(description="Body")
    def body_block(self, row: SyncRequest) -> SafeString:
        return json_block(row.body)


@admin.register(Conflict)
class ConflictAdmin(RecordAdmin):
    """What rules cannot decide."""

    list_display = ("id", "state", "kind", "field", "tone", "opened_at", "resolved_at")
    list_select_related = ("state",)
    list_filter = ("status",)
    search_fields = ("state__pk", "pk")
    search_help_text = "Number of the conflict or of its sync state"
    ordering = ("-pk",)
    defer_in_list = ("base", "ours", "theirs", "detail")
    fields = (
        "state",
        ("kind", "field"),
        "tone",
        "base_block",
        "ours_block",
        "theirs_block",
        "detail",
        "resolution",
        ("opened_at", "resolved_at"),
    )

    @admin.display(description="Status")
    def tone(self, row: Conflict) -> SafeString:
        return badge(row.get_status_display(), "bad" if row.status == Conflict.Status.OPEN else "good")

    @admin.display(description="Agreed before")
    def base_block(self, row: Conflict) -> SafeString:
        return json_block(row.base)

    @admin.display(description="Here")
    def ours_block(self, row: Conflict) -> SafeString:
        return json_block(row.ours)

    @admin.display(description="There")
    def theirs_block(self, row: Conflict) -> SafeString:
        return json_block(row.theirs)


@admin.register(Webhook)
class WebhookAdmin(RecordAdmin):
    """Messages of integrations as they came."""

    list_display = ("id", "integration", "type", "event_id", "remote_id", "state", "reason", "received_at")
    list_filter = (WebhookOutcomeFilter,)
    search_fields = ("event_id", "remote_id")
    search_help_text = "Event id or remote id, whole"
    ordering = ("-pk",)
    defer_in_list = ("payload",)
    fields = (
        ("integration", "account", "livemode"),
        ("type", "event_id"),
        "remote_id",
        ("state", "reason"),
        ("received_at", "processed_at"),
        "payload_block",
    )

    @admin.display(description="Outcome")
    def state(self, row: Webhook) -> SafeString:
        tones: dict[str, Tone] = {"pending": "warn", "poked": "good"}
        return badge(row.get_outcome_display(), tones.get(row.outcome, "plain"))

    @admin.display(description="Payload")
    def payload_block(self, row: Webhook) -> SafeString:
        return json_block(row.payload)


@admin.register(SyncAccount)
class SyncAccountAdmin(RecordAdmin):
    """Accounts with their rate limit, and whether calls to them are held back now."""

    list_display = ("integration", "account", "livemode", "closed_until", "failures", "error")
    fields = ("integration", "account", "livemode", "tokens", "refilled_at", "closed_until", "failures", "error")
    ordering = ("pk",)
