"""Deliveries in the console: one failure with everything about it, and what a person can do."""

from __future__ import annotations

import json
from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from operations.aggregate_pages import aggregate_link
from operations.audit import actor_of
from operations.console import ReasonedActions, RecordAdmin, WordsFilter
from operations.errors import MalformedBody
from operations.json_bodies import parsed
from operations.life.links import life_url
from operations.life.sources import Name
from operations.long_actions.access import may_steer
from operations.models import AuditEntry
from operations.overview import Tone
from operations.page_values import badge, json_block, moment, words
from operations.posted import posted_text
from outbox.console.records import TONES
from outbox.deciding import AT_ONCE, deliveries_retry, deliveries_skip
from outbox.errors import DecisionRefused, InvalidEvent
from outbox.masking import LARGEST_SHOWN, may_read_payload, payload_masked
from outbox.models import AggregateSequence, Delivery, Detour, Replacement, StoredEvent
from outbox.models.delivery import OPEN
from outbox.replacing import delivery_replace

ATTEMPTS_SHOWN: Final = 100
VERBS: Final = {
    "retry": "outbox.retry_delivery",
    "skip": "outbox.skip_delivery",
    "replace": "outbox.edit_delivery",
}


@admin.register(Delivery)
class DeliveryAdmin(RecordAdmin):
    """Deliveries that did not go through at once, newest first."""

    change_form_template = "outbox/delivery.html"
    plural = "failed deliveries"
    list_display = (
        "number",
        "subscriber",
        "type",
        "about",
        "state_badge",
        "attempts",
        "code",
        "next_attempt",
        "first_failed",
    )
    list_display_links = ("number",)
    list_filter = (("state", WordsFilter),)
    search_fields = ("id", "event_id")
    search_help_text = "Id of the delivery or of the event, or the fingerprint of what is open, whole"
    ordering = ("-id",)
    defer_in_list = ("envelope", "traceback", "message")
    actions = ("retry", "skip")
    action_form = ReasonedActions

    def life_of(self, record: Delivery) -> Name:
        return Name("event", str(record.event_id))

    @admin.display(description="number")
    def number(self, delivery: Delivery) -> int:
        return delivery.pk

    @admin.display(description="subscriber")
    def subscriber(self, delivery: Delivery) -> str:
        return delivery.subscription_id

    @admin.display(description="next attempt")
    def next_attempt(self, delivery: Delivery) -> str:
        return moment(delivery.next_attempt_at)

    @admin.display(description="first failed")
    def first_failed(self, delivery: Delivery) -> str:
        return moment(delivery.created_at)

    @admin.display(description="aggregate")
    def about(self, delivery: Delivery) -> SafeString | str:
        return aggregate_link(delivery.aggregate_type, delivery.aggregate_id)

    @admin.display(description="state")
    def state_badge(self, delivery: Delivery) -> SafeString:
        return badge(words(delivery.resolution or delivery.state), _tone(delivery))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        found, distinct = super().get_search_results(request, queryset, search_term)
        if len(search_term.strip()) == 32:
            # A fingerprint: by the index of what is open. Asked for beside ids it would be looked for in all rows.
            return queryset.filter(fingerprint=search_term.strip(), state__in=OPEN), False
        return found, distinct

    @admin.action(description="Retry now", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        ids = list(queryset.values_list("pk", flat=True)[:AT_ONCE])
        done = deliveries_retry(ids=ids, actor=actor_of(request), reason=posted_text(request, "reason"))
        self.message_user(request, f"{len(done)} of {len(ids)} deliveries are retried.", messages.SUCCESS)

    @admin.action(description="Skip: their aggregates go on without them", permissions=["skip"])
    def skip(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        if not (reason := ReasonedActions.reason_of(request)):
            return
        ids = list(queryset.values_list("pk", flat=True)[:AT_ONCE])
        done = deliveries_skip(ids=ids, actor=actor_of(request), reason=reason)
        self.message_user(request, f"{len(done)} of {len(ids)} deliveries were skipped.", messages.SUCCESS)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(VERBS["retry"])

    def has_skip_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(VERBS["skip"])

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<int:delivery_id>/do/<str:verb>/", self.admin_site.admin_view(self.do_view), name="outbox_delivery_do"
        )
        return [own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        text = "No delivery has failed. What went through at once is not listed; subscribers count it."
        return super().changelist_view(request, {"empty_text": text, **(extra_context or {})})

    def do_view(self, request: HttpRequest, delivery_id: int, verb: str) -> HttpResponse:
        """One button."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if verb not in VERBS or not Delivery.objects.filter(pk=delivery_id).exists():
            raise Http404
        if not request.user.has_perm(VERBS[verb]):
            raise PermissionDenied
        level, text = _do(request, delivery_id, verb)
        self.message_user(request, text, level)
        return redirect(reverse("admin:outbox_delivery_change", args=[delivery_id]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        delivery: Delivery | None = self.get_object(request, object_id)
        if delivery is None:
            raise Http404
        return TemplateResponse(request, "outbox/delivery.html", self._context(request, delivery))

    def _context(self, request: HttpRequest, delivery: Delivery) -> dict[str, Any]:
        envelope, readable = delivery.envelope, may_read_payload(request)
        payload = envelope.get("payload")
        text = json.dumps(payload, indent=2, ensure_ascii=False) if readable else ""
        # A large one is on the page once, if at all: browsers stand still over a megabyte in two places.
        whole, small = "whole" in request.GET, len(text) <= LARGEST_SHOWN
        event = StoredEvent.objects.filter(pk=delivery.event_id).first()
        detour = Detour.objects.filter(
            aggregate_type=delivery.aggregate_type,
            aggregate_id=delivery.aggregate_id,
            subscription_id=delivery.subscription_id,
        ).first()
        may = {verb: request.user.has_perm(permission) for verb, permission in VERBS.items()}
        return {
            **self.admin_site.each_context(request),
            "title": f"Delivery {delivery.pk}",
            "delivery": delivery,
            "tone": _tone(delivery),
            "about": aggregate_link(delivery.aggregate_type, delivery.aggregate_id),
            "is_open": delivery.state in OPEN,
            "life_url": life_url(self.life_of(delivery)),
            "attempts": [
                (one, "good" if one.outcome == "delivered" else "bad")
                for one in delivery.timeline.order_by("-id")[:ATTEMPTS_SHOWN]
            ],
            "event": event,
            "envelope": envelope,
            "readable": readable,
            "payload": json_block(
                payload if readable else payload_masked(payload),
                most=None if whole else LARGEST_SHOWN,
                whole="?whole=1",
            ),
            "payload_text": text if small or whole else "",
            "in_the_form": whole and not small and delivery.state in OPEN and may["replace"],
            "detour": detour,
            "behind": _behind(delivery),
            "waits_behind": detour is not None and detour.next_sequence < delivery.sequence,
            "replacement": Replacement.objects.filter(
                original_id=delivery.event_id, subscriber=delivery.subscription_id
            ).first(),
            "audit": AuditEntry.objects.filter(target=f"delivery:{delivery.pk}").order_by("-pk")[:20],
            "may": may,
            "plan_url": _plan_url(delivery) if may["retry"] and may_steer(request, "plan") else "",
        }


def _behind(delivery: Delivery) -> int:
    """How many events its aggregate has after it."""
    about = {"aggregate_type": delivery.aggregate_type, "aggregate_id": delivery.aggregate_id}
    last = AggregateSequence.objects.filter(**about).values_list("sequence", flat=True).first()
    return max(0, (last or 0) - delivery.sequence)


def _plan_url(delivery: Delivery) -> str:
    """The dry run of a replay of everything that failed in the same way."""
    query = urlencode({"kind": "outbox.replay", "filter": json.dumps({"fingerprint": delivery.fingerprint})})
    return f"{reverse('admin:operations_operation_plan')}?{query}"


def _do(request: HttpRequest, delivery_id: int, verb: str) -> tuple[int, str]:
    """Carry one button out: level and text of the message."""
    reason = posted_text(request, "reason")
    actor = actor_of(request)
    if verb == "retry":
        if deliveries_retry(ids=[delivery_id], actor=actor, reason=reason):
            return messages.SUCCESS, "It is retried now."
        return messages.ERROR, "It is resolved, or waits behind an earlier event of its aggregate. Nothing was done."
    if not reason:
        return messages.ERROR, "Say why. Nothing was done."
    if verb == "skip":
        if deliveries_skip(ids=[delivery_id], actor=actor, reason=reason):
            return messages.SUCCESS, "It was skipped; its aggregate goes on."
        return messages.ERROR, "It is resolved, or waits behind an earlier event of its aggregate. Nothing was done."
    if not may_read_payload(request):
        raise PermissionDenied
    try:
        payload = parsed(request.POST.get("payload", "").encode())
        made = delivery_replace(delivery_id=delivery_id, payload=payload, actor=actor, reason=reason)
    except MalformedBody as exc:
        return messages.ERROR, f"This is no JSON that can be published. Nothing was published. {exc.detail}"
    except InvalidEvent as exc:
        return messages.ERROR, f"{exc} Nothing was published."
    except DecisionRefused as exc:
        return messages.ERROR, str(exc)
    return messages.SUCCESS, f"Event {made.event_id} was published in its place."


def _tone(delivery: Delivery) -> Tone:
    return TONES[delivery.state] if delivery.resolution in ("", "delivered") else "plain"
