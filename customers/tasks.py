"""Periodic work of this app, as Celery runs it; the relay runs the same functions with less delay."""

from __future__ import annotations

from celery import shared_task

from customers.erasing.services import erasures_sweep_once
from customers.sync.runner import sync_due_once
from customers.sync.trying_again import failed_syncs_retry_once
from customers.sync.webhooks import webhooks_process_once


@shared_task
def sync_due() -> int:
    """Synchronise what is due."""
    return sync_due_once()


@shared_task
def webhooks_process() -> int:
    """Turn stored webhooks into pokes."""
    return webhooks_process_once()


@shared_task
def failed_syncs_retry() -> int:
    """Try those failed syncs again that may succeed by now."""
    return failed_syncs_retry_once()


@shared_task
def erasures_sweep() -> int:
    """Go through the traces of people who are being erased."""
    return erasures_sweep_once()
