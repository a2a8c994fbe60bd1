"""Celery tasks of the projections."""

from __future__ import annotations

from celery import shared_task

from projections.runner import projections_run_once


@shared_task(name="projections.tasks.run", ignore_result=True)
def run() -> int:
    """Bring read models up to date; beat calls it every second, and the relay does the same with less delay."""
    return projections_run_once(seconds=20.0)
