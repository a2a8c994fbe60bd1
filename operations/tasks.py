"""What Celery runs of this app."""

from __future__ import annotations

from celery import shared_task

from operations.long_actions.runner import operations_run_once


@shared_task(name="operations.tasks.operations_run")
def operations_run() -> int:
    """Work on the operations that are due."""
    return operations_run_once()
