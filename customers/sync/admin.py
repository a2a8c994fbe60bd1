"""The console's pages of the synchronisation: states, requests, webhooks, accounts."""

from __future__ import annotations

import time
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from customers.models import SyncAccount, SyncRequest, SyncState, Webhook
from customers.sync.advice import state_advice
from customers.sync.conflict_admin import open_conflicts_link
from customers.sync.looking_again import states_look_again
from customers.sync.readable_admin import ReadableAdmin
from operations.audit import actor_of
from operations.console import RecordAdmin, WordsFilter
from operations.life.sources import Name
from operations.overview import Tone
from operations.page_values import NOTHING, badge, json_block, moment, number_of, record_link, words

_TONES: dict[str, Tone] = {
    "in_sync": "good",
    "pending": "plain",
    "retrying": "warn",
    "conflict": "bad",
    "failed": "bad",
    "orphaned": "bad",
    "deleted": "plain",
}
_FACTS = ("state", "next_step", "customer_link", "remote", "mode", "agreed", ("last_success_at", "updated_at"))


class RequestOutcomeFilter(SimpleListFilter):
    """Requests that are in flight, or that ended in another way than by success: each by a partial index."""

    title = "outcome"
    parameter_name = "ended"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        odd = (SyncRequest.Outcome.ADOPTED, SyncRequest.Outcome.REFUSED, SyncRequest.Outcome.ABANDONED)
        return [("in_flight", "In flight"), *((outcome.value, words(str(outcome.label))) for outcome in odd)]

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
class SyncStateAdmin(ReadableAdmin):
    """One customer in one integration."""

    list_display = ("id", "remote", "customer_link", "state", "failures", "last_error_code", "waiting_since")
    list_select_related = ("customer",)
    list_filter = (("status", WordsFilter),)
    search_fields = ("remote_id", "customer__pk", "pk")
    search_help_text = "Remote id, customer's id or number, whole"
    ordering = ("-pk",)
    defer_in_list = ("base", "last_error_message")
    actions = ("look_again",)
    page_actions = ("look_again",)
    labels = {
        "lease_owner": "Worker that has it",
        "lease_until": "It has it until",
        "lease_token": "Times a worker took it",
        "poke_count": "Times a look was asked for",
    }
    fieldsets = (
        (None, {"fields": _FACTS}),
        (
            "What is wanted",
            {"fields": (("waiting_since", "importance"), ("failures", "next_attempt"), ("last_error",))},
        ),
        (
            "Worker",
            {"fields": (("lease_owner", "lease_until"), ("lease_token", "poke_count"), "created_at")},
        ),
    )

    def life_of(self, record: SyncState) -> Name:
        if record.customer_id is None:
            return Name("remote", str(record.remote_id))
        return Name("customer", str(record.customer_id))

    @admin.display(description="Status")
    def state(self, row: SyncState) -> SafeString:
        return badge(words(row.get_status_display()), _TONES.get(row.status, "plain"))

    @admin.display(description="What to do")
    def next_step(self, row: SyncState) -> SafeString | str:
        found, advice = open_conflicts_link(row), state_advice(row.status)
        return format_html("{} {}", found, advice) if found or advice else NOTHING

    @admin.display(description="Next attempt at")
    def next_attempt(self, row: SyncState) -> str:
        return moment(row.attempt_due_at)

    @admin.display(description="Remote record")
    def remote(self, row: SyncState) -> str:
        return f"{row.integration} {row.remote_id or NOTHING}"

    @admin.display(description="Customer")
    def customer_link(self, row: SyncState) -> SafeString | str:
        return self.whose(row, row.customer)

    @admin.display(description="Account")
    def mode(self, row: SyncState) -> str:
        return _account(row)

    @admin.display(description="Agreed by both sides")
    def agreed(self, row: SyncState) -> SafeString | str:
        return json_block(self.read(row, row.base))

    @admin.display(description="Waiting since")
    def waiting_since(self, row: SyncState) -> str:
        return moment(row.dirty_at)

    @admin.display(description="Priority")
    def importance(self, row: SyncState) -> str:
        return row.get_priority_display() if row.dirty_at else NOTHING

    @admin.display(description="Failures in a row")
    def failures(self, row: SyncState) -> int:
        return row.attempts

    @admin.display(description="Last error")
    def last_error(self, row: SyncState) -> str:
        return " ".join(filter(None, (row.last_error_class, row.last_error_code, row.last_error_message))) or NOTHING

    @admin.action(description="Look again now", permissions=["look_again"])
    def look_again(self, request: HttpRequest, queryset: QuerySet[SyncState]) -> None:
        count = states_look_again(ids=list(queryset.values_list("pk", flat=True)), actor=actor_of(request))
        self.message_user(
            request, f"{number_of(count, 'sync state', 'sync states')} looked at again.", messages.SUCCESS
        )

    def has_look_again_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("customers.look_again_syncstate")


@admin.register(SyncRequest)
class SyncRequestAdmin(ReadableAdmin):
    """Writing requests, as they were sent and how they ended."""

    list_display = ("id", "state_link", "method", "ended", "sends", "first_sent_at", "resolved_at", "error_code")
    list_select_related = ("state",)
    list_filter = (RequestOutcomeFilter,)
    search_fields = ("uid", "state__pk")
    search_help_text = "Idempotency key without its generation, or number of the sync state"
    ordering = ("-pk",)
    defer_in_list = ("body", "fields", "error_message")
    fields = (
        "state",
        ("method", "idempotency_key"),
        "body_block",
        ("first_sent_at", "last_sent_at", "sends"),
        ("ended", "resolved_at"),
        ("error_code", "error_message"),
    )

    def life_of(self, record: SyncRequest) -> Name:
        return Name("request", record.key)

    @admin.display(description="Sync state")
    def state_link(self, row: SyncRequest) -> SafeString | str:
        return record_link(row.state)

    @admin.display(description="Outcome")
    def ended(self, row: SyncRequest) -> SafeString:
        tones: dict[str, Tone] = {"": "warn", "succeeded": "good", "refused": "bad"}
        return badge(words(row.get_outcome_display()), tones.get(row.outcome, "plain"))

    @admin.display(description="Idempotency key")
    def idempotency_key(self, row: SyncRequest) -> str:
        return row.key

    @admin.display(description="Body")
    def body_block(self, row: SyncRequest) -> SafeString | str:
        return json_block(self.read(row, row.body))


@admin.register(Webhook)
class WebhookAdmin(ReadableAdmin):
    """Messages of integrations as they came."""

    list_display = ("id", "type", "event_id", "remote_link", "state", "received_at")
    list_filter = (WebhookOutcomeFilter,)
    search_fields = ("event_id", "remote_id")
    search_help_text = "Event id or remote id, whole"
    ordering = ("-pk",)
    defer_in_list = ("payload",)
    fields = (
        ("integration", "mode"),
        ("type", "event_id"),
        "remote_link",
        "cause",
        "state",
        ("received_at", "processed_at"),
        "came",
        "payload_block",
    )

    @admin.display(description="Account")
    def mode(self, row: Webhook) -> str:
        return _account(row)

    def life_of(self, record: Webhook) -> Name:
        return Name("webhook", record.event_id)

    @admin.display(description="Request of ours that caused it")
    def cause(self, row: Webhook) -> SafeString | str:
        return record_link(row.caused_by)

    @admin.display(description="Remote record")
    def remote_link(self, row: Webhook) -> SafeString | str:
        # The list of customers finds by remote id.
        address = reverse("admin:customers_customer_changelist", query={"q": row.remote_id})
        return format_html('<a href="{}">{}</a>', address, row.remote_id) if row.remote_id else NOTHING

    @admin.display(description="Outcome")
    def state(self, row: Webhook) -> SafeString:
        shown: dict[str, tuple[str, Tone]] = {
            Webhook.Outcome.PENDING: ("Waiting", "warn"),
            Webhook.Outcome.POKED: ("Looked at", "good"),
            Webhook.Outcome.IGNORED: ("Ignored", "plain"),
        }
        return format_html('{} <span class="quiet">{}</span>', badge(*shown[row.outcome]), row.reason)

    @admin.display(description="How it came")
    def came(self, row: Webhook) -> str:
        return "It was asked for: no webhook had brought it." if row.polled else "As a webhook."

    @admin.display(description="Payload")
    def payload_block(self, row: Webhook) -> SafeString | str:
        return json_block(self.read(row, row.payload))


@admin.register(SyncAccount)
class SyncAccountAdmin(RecordAdmin):
    """Accounts with their rate limit, and whether calls to them are held back now."""

    list_display = ("integration", "mode", "closed_until", "failures", "error", "polled_until", "polling_error")
    fields = (
        "integration",
        "mode",
        "reserved",
        ("closed_until", "failures"),
        "error",
        ("polled_until", "polling_until"),
        "polling_error",
    )
    ordering = ("pk",)
    labels = {
        "closed_until": "No call starts before",
        "failures": "Calls in a row without an answer",
        "error": "Why calls were held back last",
        "polled_until": "Messages asked for up to",
        "polling_until": "Asking up to",
        "polling_error": "Why messages could not be asked for",
    }

    @admin.display(description="Account")
    def mode(self, row: SyncAccount) -> str:
        return _account(row)

    @admin.display(description="Calls that wait for their moment")
    def reserved(self, row: SyncAccount) -> int:
        return sum(moment > time.time() for moment in row.starts)


def _account(row: SyncState | Webhook | SyncAccount) -> str:
    """Which account, and whether money is real there."""
    return f"{row.account or 'that of the key'}, {'live mode' if row.livemode else 'test mode'}"
