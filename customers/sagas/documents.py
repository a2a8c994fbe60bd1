"""A saga as JSON, for whoever waits for its end; it holds no values, only names of fields."""

from __future__ import annotations

from typing import Any

from customers.instants import instant_text
from customers.models import Saga, SagaStep


def saga_document(saga: Saga) -> dict[str, Any]:
    """It, its steps in their order, and why it turned back."""
    failed = saga.failure or {}
    return {
        "id": str(saga.pk),
        "action": str(saga.action),
        "customer_id": str(saga.customer_id),
        "status": str(saga.status),
        "fields": saga.fields,
        "steps": [_step(step) for step in sorted(saga.steps.all(), key=lambda step: step.number)],
        "problem": {name: failed.get(name) for name in ("status", "code", "title", "detail")} if failed else None,
        "attempts": saga.attempts,
        "last_error": _error(saga),
        "next_attempt_at": _instant(saga.next_attempt_at) if saga.lease_until is None and _is_open(saga) else None,
        "created_at": _instant(saga.created_at),
        "finished_at": _instant(saga.finished_at),
    }


def _step(step: SagaStep) -> dict[str, Any]:
    return {
        "number": step.number,
        "step": str(step.kind),
        "integration": step.integration or None,
        "status": str(step.status),
        "attempts": step.attempts,
        "undo_attempts": step.undo_attempts,
        "error": {"code": step.error_code, "message": step.error_message} if step.error_message else None,
        "started_at": _instant(step.started_at),
        "finished_at": _instant(step.finished_at),
    }


def _error(saga: Saga) -> dict[str, str] | None:
    if not saga.last_error_class:
        return None
    return {"class": saga.last_error_class, "code": saga.last_error_code, "message": saga.last_error_message}


def _is_open(saga: Saga) -> bool:
    return saga.status in (Saga.Status.RUNNING, Saga.Status.UNDOING)


def _instant(value: Any) -> str | None:
    return instant_text(value) if value is not None else None
