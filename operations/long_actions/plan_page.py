"""The console's page that plans an operation: first its dry run, then the form that keeps it."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from rest_framework.exceptions import ValidationError

from operations.audit import actor_of
from operations.errors import ProblemError
from operations.json_bodies import parsed
from operations.long_actions.access import may_do, may_steer
from operations.long_actions.errors import OperationUnderWay
from operations.long_actions.kinds import Kind, Plan, kind_named, kinds
from operations.long_actions.planning import REASON_LENGTH, Pace, operation_create, operation_plan
from operations.long_actions.steering import operation_start


class PaceForm(forms.Form):
    """Why, and how fast."""

    reason = forms.CharField(
        max_length=REASON_LENGTH, help_text="For the audit trail.", widget=forms.TextInput({"size": 60})
    )
    canary = forms.IntegerField(min_value=0, max_value=1_000_000, initial=10, help_text="So many items first.")
    rate = forms.FloatField(
        min_value=0.01, max_value=100_000, required=False, help_text="Items a second; empty is as fast as it goes."
    )
    ramp_seconds = forms.IntegerField(
        label="Ramp, in seconds",
        min_value=0,
        max_value=86_400,
        initial=0,
        help_text="From a tenth of the rate to all of it.",
    )
    stop_error_percent = forms.FloatField(
        label="Stop above", min_value=0.1, max_value=100, initial=50, help_text="Percent of failures."
    )
    # One of the two buttons.
    start = forms.BooleanField(required=False)


def plan_page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Any page may lead here with ``?kind=…&filter=<JSON>``; GET writes nothing, POST plans (and starts).

    Args:
        context: that of every page of the console.
    """
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    if not may_steer(request, "plan"):
        raise PermissionDenied
    asked = request.POST if request.method == "POST" else request.GET
    name, text = asked.get("kind", ""), asked.get("filter", "") or "{}"
    kind = kind_named(name)
    if kind is not None and not may_do(request, kind):
        raise PermissionDenied
    plan, errors = _plan(kind, text) if kind is not None else (None, [])
    form = PaceForm(request.POST) if request.method == "POST" else PaceForm()
    if request.method == "POST" and kind is not None and plan is not None and form.is_valid():
        answer = _keep(request, kind, text, form.cleaned_data, errors)
        if answer is not None:
            return answer
    offered = [one for one in kinds() if may_do(request, one)]
    # Of the kind that was chosen; of all of them, closed, while there is a choice to be made.
    explained = offered if kind is None else [kind]
    context |= {
        "title": "Plan an operation",
        "kinds": offered,
        "filters": [(one, one.filter_keys.items(), json.dumps(one.filter_example)) for one in explained],
        "kind": kind,
        "filter": text,
        "plan": plan,
        "sample": [(key, kind.item_url(key)) for key in plan.sample] if kind is not None and plan is not None else [],
        "form": form,
        "errors": errors,
        "may_start": may_steer(request, "start"),
    }
    return TemplateResponse(request, "operations/plan.html", context, status=400 if errors else 200)


def _plan(kind: Kind, text: str) -> tuple[Plan | None, list[str]]:
    try:
        given = parsed(text.encode())
        if not isinstance(given, dict):
            return None, ["The filter must be a JSON object."]
        return operation_plan(kind=kind.name, filter=given)[1], []
    except (ProblemError, ValidationError, UnicodeEncodeError) as exc:
        return None, _texts(exc)


def _keep(
    request: HttpRequest, kind: Kind, text: str, values: dict[str, Any], errors: list[str]
) -> HttpResponse | None:
    """Plan it; None, with the errors noted, if it cannot be."""
    pace = Pace(
        canary=values["canary"],
        rate=values["rate"],
        ramp_seconds=values["ramp_seconds"],
        stop_error_rate=values["stop_error_percent"] / 100,
    )
    actor = actor_of(request)
    try:
        operation = operation_create(
            kind=kind.name, filter=parsed(text.encode()), reason=values["reason"], actor=actor, pace=pace
        )
    except (ProblemError, ValidationError) as exc:
        errors += _texts(exc)
        return None
    if values["start"] and may_steer(request, "start"):
        try:
            operation_start(operation_id=operation.pk, actor=actor)
        except OperationUnderWay as exc:
            messages.warning(request, f"{exc.detail} This one was planned and not started.")
    messages.success(request, f"Planned operation {operation.pk}.")
    return redirect(reverse("admin:operations_operation_change", args=[operation.pk]))


def _texts(exc: Exception) -> list[str]:
    if isinstance(exc, ValidationError):
        return [json.dumps(exc.detail, default=str)]
    return [exc.detail if isinstance(exc, ProblemError) else "The filter cannot be read."]
