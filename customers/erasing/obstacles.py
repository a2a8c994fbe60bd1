"""What would be lost elsewhere with somebody who is erased: asked before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from uuid import UUID

from django.conf import settings

from customers.errors import ErasureObstructed
from customers.integrations import IntegrationError, integration_get
from customers.models import Erasure, Priority, SyncState
from customers.sync.calls import gated
from customers.sync.ratelimit import Gate

_PATIENCE: Final = 2.0


def erasure_obstacles(customer_id: UUID) -> list[str]:
    """What hangs on the customer's records in integrations, a sentence each; one call for each record.

    Not asked of those that keep their record by policy, nor of somebody who was erased before. When an integration
    gives no answer that is no obstacle, unless it deletes whatever hangs on a record: else the synchronisation asks it
    again before it deletes.
    """
    if Erasure.objects.filter(pk=customer_id).exists():
        return []
    states = SyncState.objects.filter(
        customer=customer_id, remote_id__isnull=False, integration__in=settings.INTEGRATIONS
    )
    linked = states.exclude(status=SyncState.Status.DELETED).order_by("integration")
    return [text for state in linked for text in _of(state)]


def erasure_allow(customer_id: UUID) -> None:
    """Let an erasure begin that nothing stands in the way of.

    Raises:
        ErasureObstructed: something hangs on a record.
    """
    if found := erasure_obstacles(customer_id):
        raise ErasureObstructed(found)


def _of(state: SyncState) -> Iterator[str]:
    integration = integration_get(state.integration)
    is_other = (integration.account, integration.livemode) != (state.account, state.livemode)
    if integration.delete_policy == "unlink" or is_other or not integration.is_set_up():
        return
    remote_id = state.remote_id or ""
    try:
        lost = gated(
            Gate(integration),
            lambda: integration.delete_obstacle(remote_id=remote_id),
            priority=Priority.INTERACTIVE,
            patience=_PATIENCE,
        )
    except IntegrationError as exc:
        if integration.delete_policy == "delete":
            yield f"{state.integration}: what hangs on {remote_id} could not be asked: {exc.message}"
        return
    if lost:
        stays = " It stays there until nothing does." if integration.delete_policy == "refuse" else ""
        yield f"{state.integration}: {lost}{stays}"
