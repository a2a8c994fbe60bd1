"""How one integration is doing: figures that an alert or a person reads, each of them bounded."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from customers.consistency.validating import last_comparison
from customers.errors import CustomerError
from customers.instants import instant_text
from customers.integrations import integration_get
from customers.models import Conflict, Drift, SyncAccount, SyncRequest, SyncState, Webhook

COUNTED_AT_MOST: Final = 10_000
_LATEST: Final = 1_000
_LATE_SECONDS: Final = 900.0


class IntegrationNotFound(CustomerError):
    """There is no such integration."""

    status = 404
    code = "not_found"
    title = "Not found"


def integration_health(name: str) -> dict[str, Any]:
    """The figures as JSON. Counts stop at ten thousand.

    ``status`` is ``healthy``; ``degraded`` when anything failed, is retried or waits for a person; ``critical`` when no
    call may start now, or something has waited for a quarter of an hour.

    Raises:
        IntegrationNotFound: there is none of this name.
    """
    if name not in settings.INTEGRATIONS:
        raise IntegrationNotFound
    integration = integration_get(name)
    states = SyncState.objects.filter(integration=name)
    counts = {status: _bounded(states.filter(status=status)) for status in SyncState.Status.values}
    due = states.filter(dirty_at__isnull=False)
    oldest = _age(due.order_by("dirty_at").values_list("dirty_at", flat=True)[:1])
    account = SyncAccount.objects.filter(
        integration=name, account=integration.account, livemode=integration.livemode
    ).first()
    closed = account is not None and account.closed_until is not None and account.closed_until > timezone.now()
    held = instant_text(account.closed_until) if closed and account and account.closed_until else None
    requests = SyncRequest.objects.in_flight().filter(state__integration=name)
    waiting = Webhook.objects.pending().filter(integration=name)
    conflicts = _bounded(Conflict.objects.open().filter(state__integration=name))
    proposals = _bounded(Drift.objects.proposals().filter(integration=name))
    troubles = counts["failed"] + counts["retrying"] + counts["orphaned"] + conflicts + proposals
    late = closed or oldest > _LATE_SECONDS
    return {
        "integration_name": name,
        "account": integration.account or None,
        "livemode": integration.livemode,
        "status": "critical" if late else "degraded" if troubles else "healthy",
        "checked_at": instant_text(timezone.now()),
        "sync_states": counts,
        "backlog": {"count": _bounded(due), "oldest_seconds": round(oldest, 3)},
        "requests_in_flight": {
            "count": _bounded(requests),
            "oldest_seconds": round(_age(requests.order_by("id").values_list("first_sent_at", flat=True)[:1]), 3),
        },
        "latest_requests": _latest(name),
        "webhooks_waiting": {
            "count": _bounded(waiting),
            "oldest_seconds": round(_age(waiting.order_by("id").values_list("received_at", flat=True)[:1]), 3),
        },
        "messages": {
            "asked_for_up_to": instant_text(account.polled_until) if account and account.polled_until else None,
            "last_error": (account.polling_error or None) if account else None,
        },
        "open_conflicts": conflicts,
        "open_proposals": proposals,
        "calls": {
            "rate_limit": integration.rate,
            "held_back_until": held,
            "unanswered_in_a_row": account.failures if account else 0,
            "last_error": (account.error or None) if account else None,
        },
        "last_comparison": last_comparison(name),
    }


def _latest(name: str) -> dict[str, Any]:
    """How the latest writing requests ended; refused ones among them are the failure rate."""
    rows = SyncRequest.objects.order_by("-pk").values_list("outcome", "state__integration")[:_LATEST]
    outcomes = [outcome for outcome, integration in rows if integration == name and outcome]
    refused = outcomes.count(SyncRequest.Outcome.REFUSED)
    return {
        "count": len(outcomes),
        "refused": refused,
        "failure_rate": round(refused / len(outcomes), 4) if outcomes else None,
    }


def _bounded(rows: QuerySet[Any]) -> int:
    return rows.order_by()[:COUNTED_AT_MOST].count()


def _age(moments: QuerySet[Any, datetime | None]) -> float:
    moment = next(iter(moments), None)
    return max(0.0, (timezone.now() - moment).total_seconds()) if moment is not None else 0.0
