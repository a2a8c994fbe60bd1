"""Consumed messages that did not go through at once: each with its failure, and what a person can do."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import orjson
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from operations.audit import actor_of
from operations.console import ReasonedActions, RecordAdmin, WordsFilter
from operations.life.links import life_url
from operations.life.sources import Name
from operations.long_actions.access import may_steer
from operations.models import AuditEntry
from operations.overview import Tone
from operations.page_values import NOTHING, badge, json_block, words
from operations.posted import posted_text
from outbox.console.records import TONES
from outbox.consuming.queues import waiting_behind
from outbox.consuming.redriving import consumed_discard, consumed_retry
from outbox.masking import may_read_payload, payload_masked
from outbox.models import ParkedMessage, ParkedState

LARGEST_SHOWN: Final = 100_000
BYTES_SHOWN: Final = 4_000
VERBS: Final = {"redrive": "outbox.redrive_parkedmessage", "discard": "outbox.discard_parkedmessage"}


@admin.register(ParkedMessage)
class ParkedMessageAdmin(RecordAdmin):
    """Messages of Kafka that are retried, wait behind such a one, or are dead, newest first."""

    change_form_template = "outbox/consumed.html"
    plural = "consumed messages"
    list_display = ("id", "consumer_group", "topic", "type", "aggregate_id", "status", "code", "attempts", "created_at")
    list_display_links = ("id",)
    list_filter = (("state", WordsFilter),)
    search_fields = ("id", "event_id")
    search_help_text = "Number, or id of the event; whole"
    ordering = ("-id",)
    defer_in_list = ("key", "value", "headers", "traceback")
    actions = ("redrive", "plan", "discard")
    action_form = ReasonedActions

    def life_of(self, record: ParkedMessage) -> Name:
        return Name("event", record.event_id)

    @admin.display(description="status")
    def status(self, parked: ParkedMessage) -> SafeString:
        return badge(words(parked.resolution or parked.state), _tone(parked))

    @admin.action(description="Retry now", permissions=["redrive"])
    def redrive(self, request: HttpRequest, queryset: QuerySet[ParkedMessage]) -> None:
        ids = list(queryset.values_list("pk", flat=True)[:1_000])
        done = consumed_retry(ids=ids, actor=actor_of(request), reason=posted_text(request, "reason"))
        self.message_user(request, f"{len(done)} of {len(ids)} messages are retried.", messages.SUCCESS)

    @admin.action(description="Replay as an operation, with a dry run", permissions=["redrive"])
    def plan(self, request: HttpRequest, queryset: QuerySet[ParkedMessage]) -> HttpResponse:
        return redirect(_plan_url({"ids": list(queryset.values_list("pk", flat=True)[:1_000])}))

    @admin.action(description="Give up: what waits behind them goes on", permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: QuerySet[ParkedMessage]) -> None:
        if not (reason := ReasonedActions.reason_of(request)):
            return
        ids = list(queryset.values_list("pk", flat=True)[:1_000])
        done = consumed_discard(ids=ids, actor=actor_of(request), reason=reason)
        self.message_user(request, f"{len(done)} of {len(ids)} messages were given up.", messages.SUCCESS)

    def has_redrive_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(VERBS["redrive"])

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(VERBS["discard"])

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<int:message_id>/do/<str:verb>/", self.admin_site.admin_view(self.do_view), name="outbox_consumed_do"
        )
        return [own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        text = "Every consumed message was handled at once. Those are not listed; metrics count them."
        return super().changelist_view(request, {"empty_text": text, **(extra_context or {})})

    def do_view(self, request: HttpRequest, message_id: int, verb: str) -> HttpResponse:
        """One button."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        if verb not in VERBS or not ParkedMessage.objects.filter(pk=message_id).exists():
            raise Http404
        if not request.user.has_perm(VERBS[verb]):
            raise PermissionDenied
        level, text = _do(request, message_id, verb)
        self.message_user(request, text, level)
        return redirect(reverse("admin:outbox_parkedmessage_change", args=[message_id]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD") or not self.has_view_permission(request):
            raise PermissionDenied
        parked: ParkedMessage | None = self.get_object(request, object_id)
        if parked is None:
            raise Http404
        return TemplateResponse(request, "outbox/consumed.html", self._context(request, parked))

    def _context(self, request: HttpRequest, parked: ParkedMessage) -> dict[str, Any]:
        may = {verb: request.user.has_perm(permission) for verb, permission in VERBS.items()}
        readable = may_read_payload(request)
        return {
            **self.admin_site.each_context(request),
            "title": f"Consumed message {parked.pk}",
            "parked": parked,
            "tone": _tone(parked),
            "is_dead": parked.state == ParkedState.DEAD,
            "life_url": life_url(self.life_of(parked)),
            "waiting": waiting_behind(parked),
            "readable": readable,
            "payload": _payload(parked, readable=readable),
            "headers": json_block(_headers(parked)),
            "audit": AuditEntry.objects.filter(target=f"consumed:{parked.pk}").order_by("-pk")[:20],
            "may": may,
            "plan_url": _plan_url({"fingerprint": parked.fingerprint})
            if may["redrive"] and may_steer(request, "plan") and parked.fingerprint
            else "",
        }


def _do(request: HttpRequest, message_id: int, verb: str) -> tuple[int, str]:
    """Carry one button out: level and text of the message."""
    reason, actor = posted_text(request, "reason"), actor_of(request)
    if verb == "redrive":
        if consumed_retry(ids=[message_id], actor=actor, reason=reason):
            return messages.SUCCESS, "It is retried by the next worker of its group."
        return messages.ERROR, "It is not dead. Nothing was done."
    if not reason:
        return messages.ERROR, "Say why. Nothing was done."
    if consumed_discard(ids=[message_id], actor=actor, reason=reason):
        return messages.SUCCESS, "It was given up; its dead letter stays in Kafka."
    return messages.ERROR, "It is not dead. Nothing was done."


def _plan_url(given: dict[str, Any]) -> str:
    """The dry run of a replay."""
    query = urlencode({"kind": "outbox.redrive", "filter": json.dumps(given)})
    return f"{reverse('admin:operations_operation_plan')}?{query}"


def _tone(parked: ParkedMessage) -> Tone:
    return TONES.get(parked.state, "warn") if parked.resolution in ("", "handled") else "plain"


def _payload(parked: ParkedMessage, *, readable: bool) -> SafeString | str:
    value = bytes(parked.value or b"")
    try:
        payload = orjson.loads(value)
    except orjson.JSONDecodeError:
        return _no_json(value, readable=readable) if value else NOTHING
    if len(value) > LARGEST_SHOWN:
        return f"{len(value)} bytes of JSON"
    return json_block(payload if readable else payload_masked(payload))


def _no_json(value: bytes, *, readable: bool) -> SafeString | str:
    """Bytes as text, what is no printable UTF-8 escaped, as far as a page goes; its size alone to who may not read."""
    said = f"{len(value)} bytes that are no JSON"
    if not readable:
        return said
    text = value[:BYTES_SHOWN].decode(errors="backslashreplace")
    shown = "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
    said += f", the first {BYTES_SHOWN} of them:" if len(value) > BYTES_SHOWN else ":"
    return format_html('<p>{}</p><pre class="json">{}</pre>', said, shown)


def _headers(parked: ParkedMessage) -> dict[str, str]:
    return {name: base64.b64decode(text or "").decode(errors="replace") for name, text in parked.headers}
