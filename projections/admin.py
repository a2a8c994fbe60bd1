"""Failures and builds in the console: records, seen and decided upon, never changed by hand."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from operations.audit import actor_of
from operations.console import ReasonedActions, RecordAdmin
from operations.errors import ProblemError
from operations.life.sources import Name
from operations.overview import Tone
from operations.page_values import badge
from operations.posted import posted_text
from projections.access import RESOLVE, SEE_DETAIL
from projections.documents import REDACTED
from projections.failures import FINGERPRINT_LENGTH
from projections.models import Build, Failure, FailureAttempt, Strategy
from projections.models.failure import ACTIVE
from projections.registry import projection_names, projections
from projections.resolving import AlreadyResolved, failure_resolve

STATES: Final[dict[str, Tone]] = {"retrying": "warn", "manual": "bad", "resolved": "good"}
TRIED_AGAIN: Final = (Strategy.RETRY, Strategy.REBUILD_AGGREGATE)
WORDS: Final = {
    Strategy.RETRY: "The event is tried again by the next runner: load this page again for its outcome.",
    Strategy.REBUILD_AGGREGATE: (
        "The rows of {} are computed anew by the next runner, with this event: load this page again for its outcome."
    ),
    Strategy.SKIP: "{} goes on without this event.",
    Strategy.MANUAL_FIX: "{} goes on without this event, with the rows as you put them right.",
    Strategy.COMPENSATE: "The function was called; {} goes on without this event.",
}
BUILDS: Final[dict[str, Tone]] = {"live": "good", "building": "warn", "standby": "plain", "retired": "plain"}


class ProjectionFilter(admin.SimpleListFilter):
    """By projection, from the settings: a look at the table would read all of it."""

    title = "read model"
    parameter_name = "projection"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in projection_names()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(projection=self.value()) if self.value() else queryset


@admin.register(Failure)
class FailureAdmin(RecordAdmin):
    """Events that could not be applied, newest first; decisions as actions, and one by one on their page."""

    change_form_template = "projections/failure.html"
    list_display = (
        "id",
        "read_model",
        "event_type",
        "aggregate_id",
        "state_badge",
        "code",
        "last_failed_at",
    )
    list_display_links = ("id",)
    list_filter = ("state", ProjectionFilter)
    search_fields = ("id", "event_id")
    search_help_text = "Id of the failure or of the event, or the fingerprint of what is open, whole"
    ordering = ("-id",)
    defer_in_list = ("message", "traceback")
    actions = ("retry", "skip", "rebuild_aggregate")
    action_form = ReasonedActions
    fields = (
        "projection",
        "build",
        "state_badge",
        "event_link",
        "position",
        "event_type",
        "aggregate_type",
        "aggregate_id",
        "sequence",
        "error_class",
        "code",
        "message_block",
        "attempts",
        "timeline_block",
        "next_retry_at",
        "first_failed_at",
        "last_failed_at",
        "traceback_block",
        "strategy",
        "resolution",
        "decided_by",
        "resolved_at",
    )

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(RESOLVE)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # For the blocks below, which do not get the request.
        self._with_detail = request.user.has_perm(SEE_DETAIL)
        return super().get_fields(request, obj)

    def life_of(self, record: Failure) -> Name:
        return Name("event", str(record.event_id))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if len(search_term.strip()) == FINGERPRINT_LENGTH:
            # By projections_failure_kind. Asked for beside ids it would be looked for in all rows.
            return queryset.filter(fingerprint=search_term.strip(), state__in=ACTIVE), False
        return super().get_search_results(request, queryset, search_term)

    @admin.action(description="Try again now", permissions=["resolve"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Failure]) -> None:
        self._resolve_all(request, queryset, Strategy.RETRY)

    @admin.action(description="Go on without these events", permissions=["resolve"])
    def skip(self, request: HttpRequest, queryset: QuerySet[Failure]) -> None:
        if note := ReasonedActions.reason_of(request):
            self._resolve_all(request, queryset, Strategy.SKIP, note)

    @admin.action(description="Compute their aggregates anew", permissions=["resolve"])
    def rebuild_aggregate(self, request: HttpRequest, queryset: QuerySet[Failure]) -> None:
        self._resolve_all(request, queryset, Strategy.REBUILD_AGGREGATE)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method == "POST":
            return self._decide(request, object_id)
        failure = Failure.objects.filter(pk=object_id).first() if object_id.isdigit() else None
        known = {one.name: one for one in projections()}
        projection = known.get(failure.projection) if failure else None
        context = {
            "may_resolve": failure is not None and failure.state in ACTIVE and self.has_resolve_permission(request),
            "strategies": [
                one
                for one in Strategy.choices
                if one[0] != Strategy.COMPENSATE or (projection and projection.compensations)
            ],
            "compensations": sorted(projection.compensations) if projection else [],
        }
        return super().change_view(request, object_id, form_url, {**context, **(extra_context or {})})

    @admin.display(description="state")
    def state_badge(self, failure: Failure) -> SafeString:
        return badge(failure.state, STATES[failure.state])

    @admin.display(description="read model")
    def read_model(self, failure: Failure) -> str:
        return f"{failure.projection} #{failure.build_id}"

    @admin.display(description="decided by")
    def decided_by(self, failure: Failure) -> str:
        return failure.resolved_by or "-"

    @admin.display(description="event")
    def event_link(self, failure: Failure) -> SafeString:
        url = reverse("admin:outbox_storedevent_change", args=[failure.event_id])
        return format_html('<a href="{}">{}</a>', url, failure.event_id)

    @admin.display(description="message")
    def message_block(self, failure: Failure) -> str:
        return failure.message if self._with_detail else REDACTED

    @admin.display(description="traceback")
    def traceback_block(self, failure: Failure) -> SafeString:
        if not failure.traceback:
            return SafeString("-")
        return format_html('<pre class="json">{}</pre>', failure.traceback if self._with_detail else REDACTED)

    @admin.display(description="attempts that failed")
    def timeline_block(self, failure: Failure) -> SafeString:
        attempts = FailureAttempt.objects.filter(failure=failure).order_by("-id")[:50]
        return format_html_join(
            "",
            "<div>{} UTC: attempt {}, {}</div>",
            [
                (f"{one.made_at:%Y-%m-%d %H:%M:%S}", one.number, " ".join(dict.fromkeys((one.error_class, one.code))))
                for one in attempts
            ],
        )

    def _decide(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if not self.has_resolve_permission(request):
            return self._back(request, object_id, "You may not decide this.", messages.ERROR)
        try:
            failure = failure_resolve(
                failure_id=int(object_id) if object_id.isdigit() and len(object_id) < 19 else 0,
                strategy=posted_text(request, "strategy"),
                actor=actor_of(request),
                note=posted_text(request, "note", 2_000),
                compensation=posted_text(request, "compensation"),
            )
        except ProblemError as exc:
            return self._back(request, object_id, exc.detail, messages.ERROR)
        told = WORDS[Strategy(failure.strategy)].format(failure.aggregate_id)
        return self._back(request, object_id, told, messages.SUCCESS)

    def _back(self, request: HttpRequest, object_id: str, text: str, level: int) -> HttpResponse:
        self.message_user(request, text, level)
        if not object_id.isdigit():
            return HttpResponseRedirect(reverse("admin:projections_failure_changelist"))
        return HttpResponseRedirect(reverse("admin:projections_failure_change", args=[object_id]))

    def _resolve_all(
        self, request: HttpRequest, queryset: QuerySet[Failure], strategy: Strategy, note: str = ""
    ) -> None:
        done, refused = 0, ""
        for number in list(queryset.filter(state__in=ACTIVE).values_list("pk", flat=True)):
            try:
                failure_resolve(failure_id=number, strategy=strategy, actor=actor_of(request), note=note)
            except AlreadyResolved:
                # Skipped with the same event of another build a moment ago, or by somebody else.
                continue
            except ProblemError as exc:
                refused = exc.detail
            else:
                done += 1
        told = f"{done} are tried again by the next runner." if strategy in TRIED_AGAIN else f"{done} go on."
        self.message_user(request, told, messages.SUCCESS if done else messages.WARNING)
        if refused:
            self.message_user(request, f"Others were refused: {refused}", messages.ERROR)


@admin.register(Build)
class BuildAdmin(RecordAdmin):
    """Builds of read models, also those that are gone."""

    list_display = (
        "id",
        "projection",
        "version",
        "state_badge",
        "cursor",
        "events_processed",
        "checkpoint_at",
        "owner",
    )
    list_display_links = ("id",)
    list_filter = ("state",)
    ordering = ("-id",)
    fields = (
        "projection",
        "version",
        "state_badge",
        "cursor",
        "last_event_id",
        "last_event_type",
        "events_processed",
        "failures_seen",
        "checkpoint_at",
        "owner",
        "epoch",
        "lease_until",
        "seen_at",
        "strikes",
        "created_at",
        "switched_at",
        "retired_at",
    )

    @admin.display(description="state")
    def state_badge(self, build: Build) -> SafeString:
        return badge(build.state, BUILDS[build.state])
