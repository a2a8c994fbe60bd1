"""Celery tasks of the outbox."""

from __future__ import annotations

from celery import shared_task

from outbox.relay import relay_once


@shared_task(name="outbox.tasks.drain", ignore_result=True)
def drain() -> int:
    """Bring what is published to the subscribers; beat calls it every second."""
    return relay_once()
