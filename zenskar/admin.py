"""The console's page for periodic tasks: seen and paused here, defined in ``zenskar.beat``."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django_celery_beat.models import (
    ClockedSchedule,
    CrontabSchedule,
    IntervalSchedule,
    PeriodicTask,
    PeriodicTasks,
    SolarSchedule,
)

from operations.audit import actor_of, audit_record
from operations.console import RecordAdmin
from operations.page_values import badge
from zenskar.beat import BEAT_SCHEDULE
from zenskar.schedule import entries_reset, entry_is_edited

for schedule in (ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule):
    admin.site.unregister(schedule)


@admin.register(PeriodicTask)
class PeriodicTaskAdmin(RecordAdmin):
    """What ``celery beat`` sends, how often, and when it did so last.

    What is missing is made from the table in the code; what was edited (``manage.py beat set``) stays till it is reset.
    """

    list_display = ("name", "task", "scheduler", "state", "origin", "last_run_at", "total_run_count")
    list_select_related = ("interval", "crontab", "solar", "clocked")
    list_filter = ("enabled",)
    ordering = ("name",)
    fields = ("name", "task", "scheduler", "state", "expire_seconds", "last_run_at", "total_run_count", "description")
    actions = ("pause", "resume", "reset")
    page_actions = ("pause", "resume", "reset")

    @admin.display(description="Schedule")
    def origin(self, task: PeriodicTask) -> SafeString:
        return badge("edited", "warn") if entry_is_edited(task) else badge("default", "plain")

    @admin.action(description="Reset to the default", permissions=["pause"])
    def reset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        names = [name for name in queryset.values_list("name", flat=True) if name in BEAT_SCHEDULE]
        reset = entries_reset(names, actor=actor_of(request)) if names else []
        self.message_user(request, f"Put back {len(reset)} tasks.", messages.SUCCESS)

    @admin.display(description="State")
    def state(self, task: PeriodicTask) -> SafeString:
        return badge("on", "good") if task.enabled else badge("paused", "warn")

    @admin.action(description="Pause", permissions=["pause"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._switch(request, queryset, enabled=False, action="periodictask.paused", word="Paused")

    @admin.action(description="Resume", permissions=["pause"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._switch(request, queryset, enabled=True, action="periodictask.resumed", word="Resumed")

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_celery_beat.change_periodictask")

    def _switch(self, request: HttpRequest, queryset: QuerySet[Any], *, enabled: bool, action: str, word: str) -> None:
        names = list(queryset.filter(enabled=not enabled).values_list("name", flat=True))
        changed = queryset.filter(enabled=not enabled).update(enabled=enabled)
        # A bulk update sends no signal, so beat is told that its table changed.
        PeriodicTasks.update_changed()
        for name in names:
            audit_record(actor=actor_of(request), action=action, target=f"periodictask:{name}")
        self.message_user(request, f"{word} {changed} tasks.", messages.SUCCESS)
