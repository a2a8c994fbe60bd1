"""Celery tasks of the projections."""

from __future__ import annotations

from celery import shared_task

from projections.runner import projections_run_once
from projections.sampling import health_sample_once


@shared_task(name="projections.tasks.run", ignore_result=True)
def run() -> int:
    """Bring read models up to date; beat calls it every second, and the relay does the same with less delay."""
    return projections_run_once(seconds=20.0)


@shared_task(name="projections.tasks.health_sample", ignore_result=True)
def health_sample() -> int:
    """Keep what read models are like; beat calls it every minute."""
    return health_sample_once()
