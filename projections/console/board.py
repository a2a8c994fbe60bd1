"""The board of all read models, and the page of one with the buttons that put it right."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, Final

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Max, Min
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from rest_framework.exceptions import ValidationError

from operations.audit import actor_of
from operations.errors import ProblemError
from operations.long_actions.planning import operation_plan
from operations.models import Operation
from operations.posted import posted_text
from projections import rebuilding
from projections.access import REBUILD, REPLAY, RESET
from projections.comparing import rebuild_compare
from projections.console.sparkline import MINUTES, sparkline
from projections.errors import UnknownProjection
from projections.health import BuildHealth, Status, builds_health
from projections.management.printing import named_refusals
from projections.models import Failure, Minute
from projections.models.failure import ACTIVE
from projections.registry import projection_named, projection_names
from projections.replaying import ReplayKind, replay_start
from projections.resetting import projection_reset, reset_token

TONES: Final = {"healthy": "good", "degraded": "warn", "critical": "bad", "offline": "bad"}
_LABELS: Final = {"filter": "", "from_sequence": "From position", "to_sequence": "To position"}
"""What refusals call a field, and what the page calls it."""
GROUPS_AT_MOST: Final = 20
GROUPED_AT_MOST: Final = 10_000


@never_cache
def board_page(request: HttpRequest) -> HttpResponse:
    """All read models."""
    _may_look(request)
    if request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD"])
    builds = builds_health()
    lines = _sparklines(builds)
    rows = []
    for name in projection_names():
        live = next((one for one in builds if one.projection == name and one.state == "live"), None)
        others = [one for one in builds if one.projection == name and one.state != "live"]
        rows.append(
            {
                "name": name,
                "live": live,
                "others": others,
                "status": live.status.value if live else Status.OFFLINE.value,
                "tone": TONES[live.status.value if live else Status.OFFLINE.value],
                "line": lines.get(live.build) if live else None,
            }
        )
    context = {**admin.site.each_context(request), "title": "Read models", "rows": rows}
    return render(request, "projections/board.html", context)


@never_cache
def projection_page(request: HttpRequest, name: str) -> HttpResponse:
    """One read model; POST carries out one of its actions."""
    _may_look(request)
    try:
        projection = projection_named(name)
    except UnknownProjection as exc:
        raise Http404 from exc
    shown: dict[str, Any] = {}
    if request.method == "POST":
        done = _act(request, name)
        if isinstance(done, HttpResponse):
            return done
        shown = done
    elif request.method not in ("GET", "HEAD"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    builds = [one for one in builds_health() if one.projection == name]
    live = next((one for one in builds if one.state == "live"), None)
    context = {
        **admin.site.each_context(request),
        "title": name,
        "projection": projection,
        "builds": [(one, TONES[one.status.value]) for one in builds],
        "states": {one.state for one in builds},
        "live": live,
        "tone": TONES[live.status.value] if live else "bad",
        "groups": _groups(live.build) if live else [],
        "line": _sparklines(builds).get(live.build) if live else None,
        "replays": Operation.objects.filter(kind=ReplayKind.name, filter__projection=name).order_by("-pk")[:5],
        "may": {
            "replay": request.user.has_perm(REPLAY),
            "rebuild": request.user.has_perm(REBUILD),
            "reset": request.user.has_perm(RESET),
        },
        **shown,
    }
    return render(request, "projections/projection.html", context)


def _act(request: HttpRequest, name: str) -> HttpResponse | dict[str, Any]:
    """Carry out an action; what it found out is shown on the page, else the page is asked for anew."""
    action = request.POST.get("action", "")
    permission, function = _ACTIONS.get(action, ("", None))
    if function is None:
        messages.error(request, "There is no such action.")
    elif not request.user.has_perm(permission):
        raise PermissionDenied
    else:
        try:
            shown = function(request, name)
        except ProblemError as exc:
            messages.error(request, exc.detail)
        except ValidationError as exc:
            messages.error(request, named_refusals(exc.detail, _LABELS))
        else:
            if isinstance(shown, dict):
                return shown
            messages.success(request, shown)
    return HttpResponseRedirect(reverse("console-projection", args=[name]))


def _replay_plan(request: HttpRequest, name: str) -> dict[str, Any]:
    given, only = _range(request), _aggregate(request, name)
    wanted = {"projection": name, **given}
    if only is not None:
        wanted |= {"aggregate_type": only[0], "aggregate_id": only[1]}
    frozen, plan = operation_plan(kind=ReplayKind.name, filter=wanted)
    given |= {one: posted_text(request, one) for one in ("aggregate_id", "rate", "reason")}
    return {"plan": plan, "frozen": frozen, "given": given}


def _replay(request: HttpRequest, name: str) -> str:
    operation = replay_start(
        name=name,
        actor=actor_of(request),
        aggregate=_aggregate(request, name),
        rate=_rate(request),
        reason=posted_text(request, "reason"),
        **_range(request),
    )
    return f"Operation {operation.pk} is under way."


def _compare(request: HttpRequest, name: str) -> dict[str, Any]:
    return {"comparison": rebuild_compare(name=name)}


def _start(request: HttpRequest, name: str) -> str:
    build = rebuilding.rebuild_start(name=name, actor=actor_of(request))
    return f"Build {build.pk} is being filled; readers go on with the one that they have."


def _switch(request: HttpRequest, name: str) -> str | dict[str, Any]:
    # As the command does: whoever has not seen the differences does not switch to them.
    if not request.POST.get("accept"):
        comparison = rebuild_compare(name=name)
        if not comparison.is_same:
            messages.warning(request, "They differ; readers still see the old build.")
            return {"comparison": comparison}
    return f"Readers see build {rebuilding.rebuild_switch(name=name, actor=actor_of(request)).pk}."


def _rollback(request: HttpRequest, name: str) -> str:
    return f"Readers see build {rebuilding.rebuild_rollback(name=name, actor=actor_of(request)).pk} again."


def _retire(request: HttpRequest, name: str) -> str:
    rebuilding.rebuild_retire(name=name, actor=actor_of(request))
    return "The build that readers saw before is gone."


def _cancel(request: HttpRequest, name: str) -> str:
    rebuilding.rebuild_cancel(name=name, actor=actor_of(request))
    return "The build that was being filled is gone."


def _reset_ask(request: HttpRequest, name: str) -> dict[str, Any]:
    return {"token": reset_token(name=name, actor=actor_of(request))}


def _reset(request: HttpRequest, name: str) -> str:
    build = projection_reset(name=name, token=posted_text(request, "confirmation_token"), actor=actor_of(request))
    return f"Readers see an empty read model; build {build.pk} is being filled."


_Action = Callable[[HttpRequest, str], str | dict[str, Any]]
_ACTIONS: Final[dict[str, tuple[str, _Action]]] = {
    "replay_plan": (REPLAY, _replay_plan),
    "replay": (REPLAY, _replay),
    "rebuild": (REBUILD, _start),
    "compare": (REBUILD, _compare),
    "switch": (REBUILD, _switch),
    "rollback": (REBUILD, _rollback),
    "retire": (REBUILD, _retire),
    "cancel": (REBUILD, _cancel),
    "reset_ask": (RESET, _reset_ask),
    "reset": (RESET, _reset),
}


def _range(request: HttpRequest) -> dict[str, Any]:
    # Empty fields are left out; what is no number is refused by the kind, in its words.
    names = ("from_sequence", "to_sequence")
    return {name: _number(name, request.POST[name]) for name in names if request.POST.get(name, "").strip()}


def _number(name: str, text: str) -> int:
    try:
        return int(text.strip()[:20])
    except ValueError as exc:
        raise ValidationError({name: ["A whole number."]}) from exc


def _aggregate(request: HttpRequest, name: str) -> tuple[str, str] | None:
    given = posted_text(request, "aggregate_id")
    return (projection_named(name).keyed_by or "", given) if given else None


def _rate(request: HttpRequest) -> float | None:
    given = posted_text(request, "rate")
    try:
        return float(given) if given else None
    except ValueError as exc:
        raise ValidationError({"rate": ["A number of items a second."]}) from exc


def _groups(build: int) -> list[dict[str, Any]]:
    """Active failures by kind, the largest first; at most GROUPED_AT_MOST are looked at."""
    newest = Failure.objects.filter(build=build, state__in=ACTIVE).order_by("-pk").values("pk")[:GROUPED_AT_MOST]
    rows = Failure.objects.filter(pk__in=newest).values("fingerprint", "event_type", "error_class", "code")
    counted = rows.annotate(count=Count("pk"), first=Min("first_failed_at"), last=Max("last_failed_at"))
    return [dict(row) for row in counted.order_by("-count", "fingerprint")[:GROUPS_AT_MOST]]


def _sparklines(builds: list[BuildHealth]) -> dict[int, Any]:
    now = timezone.now()
    counts: dict[int, dict[dt.datetime, float]] = {}
    since = now - dt.timedelta(minutes=MINUTES)
    rows = Minute.objects.filter(build__in=[one.build for one in builds], minute__gt=since)
    for build, minute, events in rows.values_list("build_id", "minute", "events"):
        counts.setdefault(build, {})[minute] = float(events)
    return {
        one.build: sparkline(counts.get(one.build, {}), until=now, label="Events of the last hour") for one in builds
    }


def _may_look(request: HttpRequest) -> None:
    if not request.user.has_perm("projections.view_build"):
        raise PermissionDenied
