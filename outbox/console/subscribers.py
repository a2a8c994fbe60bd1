"""The subscriber board of the console: state, backlog, pause, breaker and limits of each subscriber."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Max, Min, Sum
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from operations.audit import actor_of
from operations.console import RecordAdmin
from operations.overview import Tone
from operations.page_values import badge, number_of
from outbox.board import subscribers_board
from outbox.errors import DecisionRefused, InvalidLimit, UnknownSubscriber
from outbox.lanes import LANES
from outbox.models import Lane, Subscription
from outbox.republishing import log_republish
from outbox.subscriptions import breaker_try, subscription_limit, subscription_pause, subscription_resume

VERBS: Final = {
    "pause": "outbox.pause_subscription",
    "resume": "outbox.pause_subscription",
    "probe": "outbox.pause_subscription",
    "limit": "outbox.limit_subscription",
    "republish": "outbox.republish_subscription",
}
_TONES: Final[dict[str, Tone]] = {"active": "good", "paused": "warn", "away": "bad"}


class PauseForm(forms.Form):
    """Why, and for how long."""

    reason = forms.CharField(max_length=1_000)
    minutes = forms.IntegerField(min_value=1, max_value=525_600, required=False)


class LimitForm(forms.Form):
    """Limits; empty is as the subscriber declares."""

    rate_limit = forms.FloatField(min_value=0.001, max_value=1_000_000, required=False)
    concurrency = forms.IntegerField(min_value=1, max_value=LANES, required=False)
    keep_successes = forms.BooleanField(required=False)


class RepublishForm(forms.Form):
    """Which places of the log."""

    reason = forms.CharField(max_length=1_000)
    first = forms.IntegerField(min_value=1)
    last = forms.IntegerField(min_value=1)


@admin.register(Subscription)
class SubscriptionAdmin(RecordAdmin):
    """Subscribers: whether they go on, how much waits, and how far each lane is."""

    plural = "subscribers"
    search_fields = ("name",)
    ordering = ("name",)
    fields = (
        "name",
        "state",
        "steering",
        "which_topics",
        "max_retries",
        "paused_at",
        "paused_until",
        "paused_reason",
        "paused_by",
        "breaker_failures",
        "breaker_until",
        "breaker_message",
        "rate_limit",
        "concurrency",
        "keep_successes",
        "created_at",
        "lanes",
    )

    @admin.display(description="state")
    def state(self, subscription: Subscription) -> SafeString:
        if not subscription.active:
            return badge("Not listed", "plain")
        if subscription.is_paused(timezone.now()):
            return badge("Paused", "warn")
        return badge("Away", "bad") if subscription.breaker_failures else badge("Active", "good")

    @admin.display(description="pause, resume, limits")
    def steering(self, subscription: Subscription) -> SafeString:
        address = reverse("admin:outbox_subscription_changelist")
        return format_html('<a href="{}#{}">On the board of subscribers</a>', address, subscription.pk)

    @admin.display(description="topics")
    def which_topics(self, subscription: Subscription) -> str:
        return "all" if subscription.topics is None else ", ".join(subscription.topics)

    @admin.display(description="lanes")
    def lanes(self, subscription: Subscription) -> SafeString:
        found = Lane.objects.filter(subscription=subscription).aggregate(
            lanes=Count("pk"), first=Min("cursor"), last=Max("cursor"), processed=Sum("processed"), errors=Sum("errors")
        )
        query = urlencode({"subscription__name__exact": subscription.pk})
        lanes, first, last, processed, errors = found.values()
        read = f"position {first}" if first == last else f"positions {first} to {last}"
        text = (
            f"{number_of(lanes, 'lane', 'lanes')}, read up to {read}; "
            f"{number_of(processed or 0, 'delivery', 'deliveries')}, "
            f"{number_of(errors or 0, 'failed attempt', 'failed attempts')}"
        )
        return format_html('<a href="{}?{}">{}</a>', reverse("admin:outbox_lane_changelist"), query, text)

    def get_urls(self) -> list[URLPattern]:
        own = path("<str:name>/do/<str:verb>/", self.admin_site.admin_view(self.do_view), name="outbox_subscription_do")
        return [own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        if request.GET:
            raise DisallowedModelAdminLookup("The board has no filters.")
        context = {
            **self.admin_site.each_context(request),
            "title": "Subscribers",
            "rows": [(row, _TONES[row.state], _duration(row.drain_seconds)) for row in subscribers_board()],
            "unlisted": Subscription.objects.filter(active=False).order_by("name"),
            "may": {verb: request.user.has_perm(permission) for verb, permission in VERBS.items()},
            "most_concurrency": LANES,
        }
        return TemplateResponse(request, "outbox/subscribers.html", context)

    def do_view(self, request: HttpRequest, name: str, verb: str) -> HttpResponse:
        """One button."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if verb not in VERBS:
            raise Http404
        if not request.user.has_perm(VERBS[verb]):
            raise PermissionDenied
        try:
            self.message_user(request, _do(request, name, verb), messages.SUCCESS)
        except UnknownSubscriber as exc:
            raise Http404 from exc
        except (_Invalid, DecisionRefused, InvalidLimit) as exc:
            self.message_user(request, f"{exc} Nothing was done.", messages.ERROR)
        return redirect(reverse("admin:outbox_subscription_changelist"))


class _Invalid(Exception):
    """A form was not filled in well; the text says which field and why."""


def _do(request: HttpRequest, name: str, verb: str) -> str:
    """Carry one button out; the text of the message."""
    actor = actor_of(request)
    if verb == "pause":
        given = _filled(PauseForm(request.POST))
        until = timezone.now() + timedelta(minutes=given["minutes"]) if given["minutes"] else None
        subscription_pause(name=name, reason=given["reason"], until=until, actor=actor)
        return f"{name} is paused."
    if verb == "resume":
        subscription_resume(name=name, actor=actor)
        return f"{name} goes on."
    if verb == "probe":
        breaker_try(name=name, actor=actor)
        return f"{name} is tried now."
    if verb == "limit":
        subscription_limit(name=name, **_filled(LimitForm(request.POST)), actor=actor)
        return f"The limits of {name} are set."
    given = _filled(RepublishForm(request.POST))
    found = log_republish(
        subscriber=name, first=given["first"], last=given["last"], actor=actor, reason=given["reason"]
    )
    return f"{found.events} events of {found.aggregates} aggregates go to {name} again."


def _filled(form: forms.Form) -> dict[str, Any]:
    if not form.is_valid():
        field, errors = next(iter(form.errors.items()))
        raise _Invalid(f"{field}: {' '.join(str(one) for one in errors)}")
    return form.cleaned_data


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return "now"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3600:.0f} h"
