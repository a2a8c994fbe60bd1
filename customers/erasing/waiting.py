"""What an erasure still waits for: everything that may yet write down what it read before."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Q

from customers.models import Conflict, Erasure, SyncRequest, SyncState, Webhook
from customers.sagas.erasing import saga_under_way
from outbox.status import EventStatus, events_statuses
from projections.waiting import projections_behind


def erasure_waits_for(erasure: Erasure) -> list[str]:
    """In words, each of these; empty when nothing can bring the customer's data back."""
    return [*_integrations(erasure), *_subscribers(erasure), *_read_models(erasure)]


def _integrations(erasure: Erasure) -> Iterator[str]:
    states = list(SyncState.objects.filter(customer=erasure.pk).order_by("integration"))
    asking = Conflict.objects.open().filter(state__in=states, kind=Conflict.Kind.DELETE_REFUSED)
    refused = set(asking.values_list("state", flat=True))
    flying = set(SyncRequest.objects.in_flight().filter(state__in=states).values_list("state", flat=True))
    for state in states:
        if state.pk in refused:
            yield f"{state.integration}: the record there has something live and is not deleted"
        elif state.pk in flying:
            yield f"{state.integration}: a request whose outcome is not known"
        elif state.status != SyncState.Status.DELETED or state.dirty_at is not None or state.lease_until is not None:
            yield f"{state.integration}: the record there is to be deleted"
    if saga_under_way(customer_id=erasure.pk):
        yield "a protected change that is under way"
    about = Q(pk__in=[])
    for state in states:
        if state.remote_id:
            about |= Q(integration=state.integration, remote_id=state.remote_id)
    for name in sorted(set(Webhook.objects.pending().filter(about).values_list("integration", flat=True))):
        yield f"{name}: webhooks that were not worked on yet"


def _subscribers(erasure: Erasure) -> Iterator[str]:
    for one in events_statuses([erasure.event_id]).get(erasure.event_id, []):
        if one.status is not EventStatus.PROCESSED:
            yield f"{one.subscriber}: {one.status.value} in the log"


def _read_models(erasure: Erasure) -> Iterator[str]:
    for name in projections_behind(erasure.event_id):
        yield f"{name}: not past it in the log"
