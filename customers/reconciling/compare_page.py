"""The console's page that begins a comparison: what it will do, what the last one found, and a button for each way."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from customers.integrations import Integration, integrations
from customers.models import Drift, ReconcileRun, SyncState
from customers.reconciling.conf import reconcile_settings
from customers.reconciling.kinds import ImportRemote, Reconcile, comparison_begin, comparison_under_way
from operations.audit import actor_of
from operations.long_actions.access import may_steer
from operations.long_actions.planning import REASON_LENGTH
from operations.models import Operation
from operations.posted import posted_text

_COUNTED_AT_MOST: Final = 1_000_000
_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Side:
    """An integration, and what a comparison with it means.

    Attributes:
        known: its records that are known here and not deleted; bounded.
        calls: pages that are read at least.
        seconds: how long that takes at the rate of the account; 0 without one.
        last: the last whole comparison, if there was one.
        found: what waits for a person or a repair, by kind: its title, how many are safe by rule, how many are not.
        under_way: a comparison that mends and is not over.
    """

    name: str
    known: int
    calls: int
    seconds: int
    last: ReconcileRun | None
    found: list[tuple[str, int, int]]
    under_way: Operation | None


def may_compare(request: HttpRequest) -> bool:
    """Whether whoever asks may begin comparisons."""
    steers = may_steer(request, "plan") and may_steer(request, "start")
    return steers and request.user.has_perm("customers.reconcile_drift")


def compare_page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """GET writes nothing; POST begins, or takes part in one that is under way.

    Args:
        context: that of every page of the console.
    """
    if request.method not in ("GET", "HEAD", "POST"):
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    if not may_compare(request):
        raise PermissionDenied
    usable = {name: one for name, one in integrations().items() if one.is_set_up()}
    if request.method == "POST":
        return _begun(request, usable)
    context |= {
        "title": "Compare both sides",
        "sides": [_side(name, integration) for name, integration in usable.items()],
        "deletes_most": reconcile_settings().deletes_most,
        "min_age_hours": reconcile_settings().min_age / 3600,
        "reason_length": REASON_LENGTH,
    }
    return TemplateResponse(request, "customers/compare.html", context)


def _begun(request: HttpRequest, usable: dict[str, Integration]) -> HttpResponse:
    name, way = request.POST.get("integration", ""), request.POST.get("way", "")
    if name not in usable or way not in ("dry_run", "mend", "import"):
        raise Http404
    kind = ImportRemote if way == "import" else Reconcile
    reason = posted_text(request, "reason", REASON_LENGTH).strip() or "Begun in the console."
    latest = Operation.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    operation = comparison_begin(name, actor=actor_of(request), reason=reason, dry_run=way == "dry_run", kind=kind)
    if operation.pk <= latest:
        what = "import" if way == "import" else "comparison"
        messages.info(request, f"Just that {what} was under way already: this is it.")
    return redirect(reverse("admin:operations_operation_change", args=[operation.pk]))


def _side(name: str, integration: Integration) -> Side:
    whose = {"integration": name, "account": integration.account, "livemode": integration.livemode}
    listed = SyncState.objects.filter(**whose, remote_id__isnull=False).exclude(status=SyncState.Status.DELETED)
    known = listed.order_by()[:_COUNTED_AT_MOST].count()
    calls = known // _PAGE + 1
    kinds = dict(Drift.Kind.choices)
    rows = Drift.objects.open().filter(**whose).order_by("kind").values("kind")
    counted = rows.annotate(by_rule=Count("pk", filter=Q(safe=True)), asked=Count("pk", filter=Q(safe=False)))
    return Side(
        name=name,
        known=known,
        calls=calls,
        seconds=ceil(calls / integration.rate) if integration.rate else 0,
        last=ReconcileRun.objects.filter(integration=name, complete=True).order_by("-pk").first(),
        found=[(str(kinds[row["kind"]]), row["by_rule"], row["asked"]) for row in counted],
        under_way=comparison_under_way(Reconcile(), {"integration": name, "dry_run": False}),
    )
