"""The synchronisation's tile on the console's first page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse

from customers.models import Conflict, Drift, SyncState, Webhook
from operations.overview import Figure, Tone, register

_COUNTED_AT_MOST: Final = 1000


def figures(request: HttpRequest) -> Sequence[Figure]:
    """What waits and what needs a person; each count reads a partial index and stops at a thousand."""
    states = reverse("admin:customers_syncstate_changelist")
    found = []
    tones: list[tuple[SyncState.Status, Tone]] = [
        (SyncState.Status.PENDING, "plain"),
        (SyncState.Status.RETRYING, "warn"),
        (SyncState.Status.FAILED, "bad"),
        (SyncState.Status.ORPHANED, "bad"),
    ]
    for status, tone in tones:
        count = _bounded(SyncState.objects.filter(status=status))
        found.append(_figure(status.label.lower(), count, tone, f"{states}?status__exact={status}"))
    conflicts = f"{reverse('admin:customers_conflict_changelist')}?status__exact=open"
    found.append(_figure("open conflicts", _bounded(Conflict.objects.open()), "bad", conflicts))
    proposals = f"{reverse('admin:customers_drift_changelist')}?waits=person"
    found.append(_figure("proposals", _bounded(Drift.objects.proposals()), "warn", proposals))
    webhooks = f"{reverse('admin:customers_webhook_changelist')}?ended=pending"
    found.append(_figure("webhooks waiting", _bounded(Webhook.objects.pending()), "plain", webhooks))
    return found


def tile_register() -> None:
    """Put the tile on the page."""
    register("Synchronisation", figures, permission="customers.view_syncstate", order=20)


def _bounded(rows: QuerySet[SyncState] | QuerySet[Conflict] | QuerySet[Drift] | QuerySet[Webhook]) -> int:
    return rows.order_by()[: _COUNTED_AT_MOST + 1].count()


def _figure(label: str, count: int, tone: Tone, url: str) -> Figure:
    value = f"over {_COUNTED_AT_MOST}" if count > _COUNTED_AT_MOST else count
    return Figure(label=label, value=value, tone=tone if count else "plain", url=url)
