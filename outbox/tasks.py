"""Celery tasks of the outbox."""

from __future__ import annotations

from celery import shared_task

from outbox.pruning import rows_prune
from outbox.relay import relay_once
from outbox.retention import partitions_prune


@shared_task(name="outbox.tasks.drain", ignore_result=True)
def drain() -> int:
    """Bring what is published to the subscribers; beat calls it every second."""
    return relay_once()


@shared_task(name="outbox.tasks.prune", ignore_result=True)
def prune() -> int:
    """Remove what is older than it is kept; beat calls it every hour."""
    return sum(rows_prune().values()) + sum(one.dropped for one in partitions_prune(apply=True))
