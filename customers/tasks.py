"""Periodic work of this app, as Celery runs it; the relay runs the same functions with less delay."""

from __future__ import annotations

from celery import shared_task

from customers.consistency.fixing import consistency_fix_once
from customers.erasing.services import erasures_sweep_once
from customers.reconciling.drifts import drifts_prune_once
from customers.reconciling.kinds import comparisons_begin_once
from customers.sagas.runner import sagas_due_once, sagas_prune_once
from customers.sync.polling import messages_poll_once
from customers.sync.runner import sync_due_once
from customers.sync.trying_again import failed_syncs_retry_once
from customers.sync.webhooks import webhooks_process_once


@shared_task
def sync_due() -> int:
    """Synchronise what is due."""
    return sync_due_once()


@shared_task
def sagas_due() -> int:
    """Go on with protected changes whose worker died or that wait for another attempt."""
    return sagas_due_once()


@shared_task
def sagas_prune() -> int:
    """Remove protected changes that ended long ago."""
    return sagas_prune_once()


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


@shared_task
def messages_poll() -> int:
    """Ask for messages that no webhook brought."""
    return messages_poll_once()


@shared_task
def comparisons_begin() -> int:
    """Begin to compare both sides."""
    return comparisons_begin_once()


@shared_task
def consistency_fix() -> int:
    """Begin to mend what is inconsistent."""
    return consistency_fix_once()


@shared_task
def drifts_prune() -> int:
    """Remove differences that ended long ago."""
    return drifts_prune_once()
