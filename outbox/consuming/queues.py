"""The queues of aggregates: what waits behind a message."""

from __future__ import annotations

from typing import Final

from outbox.models import ParkedMessage, ParkedState

COUNTED_AT_MOST: Final = 1_000


def waiting_behind(parked: ParkedMessage) -> int:
    """How many messages wait behind this one until it was handled or given up; 1,000 stands for as many or more."""
    holds = parked.blocks or parked.state in (ParkedState.RETRYING, ParkedState.WAITING)
    if not holds:
        return 0
    # By outbox_parked_queued.
    rows = ParkedMessage.objects.filter(
        aggregate_type=parked.aggregate_type,
        aggregate_id=parked.aggregate_id,
        topic=parked.topic,
        consumer_group=parked.consumer_group,
        state=ParkedState.WAITING,
        pk__gt=parked.pk,
    )
    return rows.order_by()[:COUNTED_AT_MOST].count()
