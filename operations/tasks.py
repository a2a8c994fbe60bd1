"""What Celery runs of this app."""

from __future__ import annotations

from celery import shared_task

from operations.alerts.checking import alerts_check_once
from operations.alerts.sending import alerts_send_once
from operations.idempotency.keys import keys_clean_once
from operations.long_actions.runner import operations_run_once
from operations.retention import records_prune_once


@shared_task(name="operations.tasks.operations_run")
def operations_run() -> int:
    """Work on the operations that are due."""
    return operations_run_once()


@shared_task(name="operations.tasks.alerts_check")
def alerts_check() -> int:
    """Find out what is wrong now."""
    return alerts_check_once()


@shared_task(name="operations.tasks.alerts_send")
def alerts_send() -> int:
    """Tell whoever should know."""
    return alerts_send_once()


@shared_task(name="operations.tasks.idempotency_clean")
def idempotency_clean() -> int:
    """Delete idempotency keys that have expired."""
    return keys_clean_once()


@shared_task(name="operations.tasks.records_prune")
def records_prune() -> int:
    """Remove operations, alerts and audit entries that are past their time."""
    return records_prune_once()
