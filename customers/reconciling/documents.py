"""Differences as JSON: the same for API and command."""

from __future__ import annotations

from typing import Any, cast

from customers.models import Conflict, Drift
from customers.models.drift import FieldDifference
from customers.sync.advice import conflict_advice
from outbox.masking import payload_masked


def drift_document(drift: Drift, *, readable: bool) -> dict[str, Any]:
    """One difference, what mends it, and what became of it.

    Args:
        readable: whether the values of the fields are shown; else they are masked, and the names stay.
    """
    return {
        "id": drift.pk,
        "integration": drift.integration,
        "kind": drift.kind,
        "subject": drift.subject,
        "customer_id": str(drift.customer_id) if drift.customer_id else None,
        "remote_id": drift.remote_id or None,
        "fields": drift_fields(drift, readable=readable),
        "detail": drift.detail,
        "repair": drift.repair or None,
        "destroys": drift.destroys,
        "safe": drift.safe,
        "why_not": drift.why_not,
        "status": drift.status,
        "operation": drift.operation_id,
        "outcome": drift.outcome,
        "found_at": drift.found_at,
        "seen_at": drift.seen_at,
        "ended_at": drift.ended_at,
        "decided_by": drift.decided_by or None,
    }


def conflict_left(conflict: Conflict) -> dict[str, Any]:
    """A conflict that stays open beside a difference that was left as it is, and what settles it."""
    return {
        "id": conflict.pk,
        "kind": conflict.kind,
        "field": conflict.field or None,
        "customer_id": str(conflict.state.customer_id) if conflict.state.customer_id else None,
        "remote_id": conflict.state.remote_id,
        "advice": conflict_advice(conflict.kind),
    }


def drift_fields(drift: Drift, *, readable: bool) -> list[FieldDifference]:
    """What differs by field; the values are masked unless they are ``readable``."""
    return drift.differing if readable else [_masked(one) for one in drift.differing]


def _masked(one: FieldDifference) -> FieldDifference:
    return cast("FieldDifference", {**payload_masked(one), "field": one["field"]})
