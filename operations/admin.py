"""The console's pages for keys and the audit trail."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString

from operations.alerts import admin as alerts  # noqa: F401 - registers itself
from operations.audit import actor_of
from operations.console import RecordAdmin
from operations.keys import apikey_revoke
from operations.life.sources import CORRELATION, Name
from operations.locks import admin as locks  # noqa: F401 - registers itself
from operations.long_actions import admin as long_actions  # noqa: F401 - registers itself
from operations.models import ApiKey, AuditEntry
from operations.page_values import badge, json_block, moment, number_of
from operations.strict_lists import StrictListMixin

for people in (User, Group):
    admin.site.unregister(people)


@admin.register(User)
class StaffAdmin(StrictListMixin, UserAdmin):  # type: ignore[type-arg]
    """Who may log in."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Users", **(extra_context or {})})


@admin.register(Group)
class RoleAdmin(StrictListMixin, GroupAdmin):
    """What they may do."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Groups", **(extra_context or {})})


class KeyStateFilter(SimpleListFilter):
    """Keys by what they open."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("expired", "Expired"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> QuerySet[ApiKey]:
        over = Q(expires_at__lte=timezone.now())
        match self.value():
            case "active":
                return queryset.filter(revoked_at=None).exclude(over)
            case "expired":
                return queryset.filter(over, revoked_at=None)
            case "revoked":
                return queryset.exclude(revoked_at=None)
            case _:
                return queryset


@admin.register(ApiKey)
class ApiKeyAdmin(RecordAdmin):
    """Keys are issued and rotated with ``manage.py apikey``, which shows them once; here they are seen and revoked."""

    list_display = ("name", "prefix", "state", "scope_list", "created_at", "ends", "used")
    list_filter = (KeyStateFilter,)
    search_fields = ("prefix",)
    search_help_text = "Prefix: what stands between zk_ and the next _ of a key"
    fields = (
        "name",
        "prefix",
        "state",
        "scope_list",
        "limit",
        "created_at",
        "ends",
        "revoked_at",
        "used",
        "rotated_from",
    )
    list_select_related = ()
    ordering = ("-pk",)
    actions = ("revoke",)
    page_actions = ("revoke",)
    dangerous_actions = frozenset({"revoke"})

    @admin.display(description="State")
    def state(self, key: ApiKey) -> SafeString:
        if key.revoked_at is not None:
            return badge("Revoked", "bad")
        now = timezone.now()
        if not key.is_usable(now):
            return badge("Expired", "plain")
        ends_soon = key.expires_at is not None and key.expires_at - now < dt.timedelta(days=30)
        return badge("Ends soon", "warn") if ends_soon else badge("Active", "good")

    @admin.display(description="Scopes")
    def scope_list(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="Expires at")
    def ends(self, key: ApiKey) -> str:
        return moment(key.expires_at, "never")

    @admin.display(description="Last used at")
    def used(self, key: ApiKey) -> str:
        return moment(key.last_used_at, "never")

    @admin.display(description="Requests a minute")
    def limit(self, key: ApiKey) -> str:
        return "as set for all" if key.rate_limit is None else str(key.rate_limit or "unlimited")

    @admin.action(description="Revoke at once and for good", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        prefixes = list(queryset.filter(revoked_at=None).values_list("prefix", flat=True))
        for prefix in prefixes:
            apikey_revoke(prefix=prefix, actor=actor_of(request))
        self.message_user(
            request, f"Revoked {len(prefixes)} of {number_of(queryset.count(), 'key', 'keys')}.", messages.SUCCESS
        )

    def offers(self, request: HttpRequest, action: str, record: ApiKey) -> bool:
        return record.revoked_at is None

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("operations.revoke_apikey")


@admin.register(AuditEntry)
class AuditEntryAdmin(RecordAdmin):
    """Who did what."""

    list_display = ("at", "actor", "action", "target", "correlation_id")
    search_fields = ("actor", "target", "correlation_id")
    search_help_text = "Actor (user:ann, key:…), target or correlation id, whole"
    fields = ("at", "actor", "action", "target", "detail_block", "correlation_id")
    ordering = ("-pk",)
    defer_in_list = ("detail",)

    def life_of(self, record: AuditEntry) -> Name | None:
        return Name(CORRELATION, record.correlation_id) if record.correlation_id else None

    @admin.display(description="Detail")
    def detail_block(self, entry: AuditEntry) -> SafeString | str:
        return json_block(entry.detail)
