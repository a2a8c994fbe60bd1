"""The console's page of the life of a thing: one search box, one timeline."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render

from operations.errors import ProblemError
from operations.life.finding import Life, life_find, may_see
from operations.life.links import life_url
from operations.life.sources import Entry, LifeSource, Name, sources
from operations.page_values import json_block

SAID_AT_MOST = 40


def life_page(request: HttpRequest) -> HttpResponse:
    """The life of what ``q`` means; without it, the search box alone."""
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    if not any(may_see(request, source) for source in sources()):
        raise PermissionDenied
    term = request.GET.get("q", "").strip()
    context: dict[str, Any] = {**admin.site.each_context(request), "title": "Life of a thing", "term": term}
    if not term:
        return render(request, "operations/life.html", context)
    try:
        life = life_find(request, term)
    except ProblemError as exc:
        return render(request, "operations/life.html", {**context, "refused": exc.detail}, status=exc.status)
    return render(request, "operations/life.html", context | _context(life))


def _context(life: Life) -> dict[str, Any]:
    began = next((entry.at for _, entry in life.entries if entry.at is not None), None)
    return {
        "title": life.subject.title,
        "life": life,
        "others": [(one.title, life_url(one.name)) for one in life.others],
        "also": [(_short(name), life_url(name)) for name in sorted(life.subject.others)],
        "rows": [_row(life, began, *one) for one in life.entries],
        "hidden": [section.source for section in life.sections if section.is_hidden],
        "cut": [section.source for section in life.sections if section.more],
    }


def _row(life: Life, began: dt.datetime | None, source: LifeSource, entry: Entry) -> dict[str, Any]:
    own = life.subject.name
    return {
        "source": source,
        "entry": entry,
        "after": _after(began, entry.at),
        "took": _took(entry),
        "about": [(_short(name), life_url(name)) for name in dict.fromkeys(entry.about) if name != own],
        "data": json_block(entry.data) if entry.data else "",
    }


def _after(began: dt.datetime | None, at: dt.datetime | None) -> str:
    """How long after the first entry, as short as it can be read."""
    if began is None or at is None:
        return ""
    seconds = (at - began).total_seconds()
    if seconds < 1:
        return f"+{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"+{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"+{minutes:.0f} min" if minutes < 120 else f"+{hours:.0f} h" if hours < 72 else f"+{hours / 24:.0f} d"


def _took(entry: Entry) -> str:
    seconds = entry.seconds
    if seconds is None and entry.at is not None and entry.ended_at is not None:
        seconds = (entry.ended_at - entry.at).total_seconds()
    return "" if seconds is None else f"{seconds:.3f} s"


def _short(name: Name) -> str:
    value = name.value if len(name.value) <= SAID_AT_MOST else f"{name.value[: SAID_AT_MOST - 1]}…"
    return f"{name.kind} {value}"
