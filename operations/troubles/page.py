"""The console's pages of troubles: all groups, and one group with its troubles, its note and its buttons."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, Final
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from operations.audit import actor_of
from operations.long_actions.access import may_do, may_steer
from operations.long_actions.kinds import kind_named
from operations.models import TroubleNote
from operations.posted import posted_text
from operations.troubles.access import may_note, may_retry, may_view, sources_for
from operations.troubles.services import (
    NotedGroup,
    trouble_note,
    troubles_groups,
    troubles_page,
    troubles_retry,
)
from operations.troubles.sources import COUNTED_AT_MOST, RETRIED_AT_ONCE, TroubleSource, source_named

SHOWN: Final = 50
SNOOZES: Final = (("", "not snoozed"), ("1", "an hour"), ("24", "a day"), ("168", "a week"))


class NoteForm(forms.Form):
    """Who looks after a group."""

    owner = forms.CharField(max_length=200, required=False)
    note = forms.CharField(max_length=4000, required=False, widget=forms.Textarea({"rows": 3, "cols": 60}))
    snooze = forms.ChoiceField(choices=SNOOZES, required=False)


def groups_page(request: HttpRequest) -> HttpResponse:
    """Everything that needs a person, by kind; with POST one group's newest thousand are tried again."""
    chosen = sources_for(request)
    if not chosen:
        raise PermissionDenied
    if request.method == "POST":
        return _retry(request, back=request.get_full_path())
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    name = request.GET.get("source", "")
    if name and name not in [source.name for source in chosen]:
        # An empty list would say that nothing needs a person.
        raise Http404
    show_snoozed = "snoozed" in request.GET
    now = timezone.now()
    found = troubles_groups([source for source in chosen if name in ("", source.name)])
    context = {
        **admin.site.each_context(request),
        "title": "Troubles",
        "groups": [_row(request, one) for one in found if show_snoozed or not one.is_snoozed(now)],
        "snoozed": sum(one.is_snoozed(now) for one in found),
        "show_snoozed": show_snoozed,
        "sources": chosen,
        "chosen": name,
    }
    return render(request, "operations/troubles.html", context)


def group_page(request: HttpRequest) -> HttpResponse:
    """One group; with POST its note is written, or some of its troubles are tried again."""
    source = _source(request)
    fingerprint = request.GET.get("group", "")
    address = _group_url(source, fingerprint)
    if request.method == "POST":
        return _write_note(request, source, address) if "owner" in request.POST else _retry(request, back=address)
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    found = troubles_groups([source], fingerprint=fingerprint)
    after = request.GET.get("after", "")
    troubles, following = troubles_page([source], fingerprint=fingerprint, place=(source.name, after), limit=SHOWN)
    note = TroubleNote.objects.filter(source=source.name, fingerprint=fingerprint).first()
    context = {
        **admin.site.each_context(request),
        "title": found[0].group.title if found else "Nothing of this kind is open",
        "source": source,
        "fingerprint": fingerprint,
        "row": _row(request, found[0]) if found else None,
        "troubles": [trouble for _, trouble in troubles],
        "next": f"{address}&{urlencode({'after': following[1]})}" if following else "",
        "may_retry": _offers_retry(request, source),
        "may_note": may_note(request),
        "note": note,
        "form": NoteForm(initial={"owner": note.owner, "note": note.note} if note else None),
    }
    return render(request, "operations/trouble_group.html", context)


def _source(request: HttpRequest) -> TroubleSource:
    source = source_named(request.GET.get("source", ""))
    if source is None or not request.GET.get("group"):
        raise Http404
    if not may_view(request, source):
        raise PermissionDenied
    return source


def _retry(request: HttpRequest, *, back: str) -> HttpResponse:
    source = source_named(posted_text(request, "source"))
    if source is None or not may_retry(request, source):
        raise PermissionDenied
    ids = request.POST.getlist("id")[:1000] or None
    group = posted_text(request, "group")
    if ids is None and not group:
        raise Http404
    reason = posted_text(request, "reason", 500)
    retried = troubles_retry(source=source, ids=ids, fingerprint=group, actor=actor_of(request), reason=reason)
    messages.success(request, f"{len(retried)} will be retried. Those that fail again are listed here again.")
    return redirect(back)


def _write_note(request: HttpRequest, source: TroubleSource, address: str) -> HttpResponse:
    if not may_note(request):
        raise PermissionDenied
    form = NoteForm(request.POST)
    fingerprint = request.GET["group"]
    if not form.is_valid() or not source.groups(fingerprint=fingerprint):
        messages.error(request, "The note was not kept: a value is too long, or nothing of this kind is open.")
        return redirect(address)
    values = form.cleaned_data
    until = timezone.now() + dt.timedelta(hours=int(values["snooze"])) if values["snooze"] else None
    trouble_note(
        source=source,
        fingerprint=fingerprint,
        actor=actor_of(request),
        owner=values["owner"],
        note=values["note"],
        snoozed_until=until,
    )
    messages.success(request, "Noted.")
    return redirect(address)


def _row(request: HttpRequest, one: NotedGroup) -> dict[str, Any]:
    group, source = one.group, one.source
    return {
        "source": source,
        "group": group,
        "note": one.note,
        "count": f"{COUNTED_AT_MOST:,} or more" if group.count >= COUNTED_AT_MOST else f"{group.count:,}",
        "sparkline": sparkline(group.hours),
        "url": _group_url(source, group.fingerprint),
        "may_retry": _offers_retry(request, source),
        "retry_label": _retry_label(group.count),
        "plan_url": _plan_url(request, source, group.fingerprint),
        "list_url": source.list_url(group.fingerprint),
    }


def _offers_retry(request: HttpRequest, source: TroubleSource) -> bool:
    """Whether there is a button: only where it helps and the person may."""
    return not source.decided_on_page and may_retry(request, source)


def _retry_label(count: int) -> str:
    if count == 1:
        return "Retry it"
    if count > RETRIED_AT_ONCE:
        return f"Retry the newest {RETRIED_AT_ONCE:,}"
    return "Retry both" if count == 2 else f"Retry all {count:,}"


def _plan_url(request: HttpRequest, source: TroubleSource, fingerprint: str) -> str:
    """The dry run of the operation that tries all of a group again; empty if the person may not plan it."""
    found = source.operation_for(fingerprint)
    kind = kind_named(found[0]) if found else None
    if found is None or kind is None or not may_steer(request, "plan") or not may_do(request, kind):
        return ""
    query = urlencode({"kind": kind.name, "filter": json.dumps(found[1])})
    return f"{reverse('admin:operations_operation_plan')}?{query}"


def _group_url(source: TroubleSource, fingerprint: str) -> str:
    return f"{reverse('console-trouble-group')}?{urlencode({'source': source.name, 'group': fingerprint})}"


def sparkline(hours: Any) -> SafeString:
    """A day as 24 bars, drawn without script or inline style."""
    if not any(hours):
        return SafeString("")
    top = max(hours)
    bars = format_html_join(
        "",
        '<rect x="{}" y="{}" width="3" height="{}"/>',
        (
            (4 * place, round(20 - 19 * count / top - 1, 1), round(19 * count / top + 1, 1))
            for place, count in enumerate(hours)
            if count
        ),
    )
    label = f"{sum(hours)} in the last 24 hours, at most {top} in one"
    return format_html('<svg class="spark" viewBox="0 0 96 20" role="img" aria-label="{}">{}</svg>', label, bars)
