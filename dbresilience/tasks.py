"""What Celery runs of this app."""

from __future__ import annotations

from celery import shared_task

from dbresilience.monitor.samples import sample_once


@shared_task(name="dbresilience.tasks.sample")
def sample() -> int:
    """Keep one sample of the database's figures."""
    return sample_once()
