"""Operations and their items as JSON: the same for API, command and whoever else asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from operations.long_actions.kinds import Kind, Plan, kind_named
from operations.models import Operation, OperationItem, OperationState


def operation_document(operation: Operation) -> dict[str, Any]:
    """What is asked for, how far it is, and what became of it."""
    kind = kind_named(operation.kind)
    return {
        "id": operation.pk,
        "kind": operation.kind,
        "title": kind.title if kind else operation.kind,
        "state": operation.state,
        "note": operation.note,
        "reason": operation.reason,
        "actor": operation.actor,
        "correlation_id": operation.correlation_id,
        "filter": operation.filter,
        "plan": {"eligible": operation.eligible, "ineligible": operation.ineligible},
        "pace": {
            "canary": operation.canary,
            "rate": operation.rate,
            "ramp_seconds": operation.ramp_seconds,
            "stop_error_rate": operation.stop_error_rate,
        },
        "progress": progress_document(operation),
        "result": kind.result(operation) if kind else {},
        "created_at": operation.created_at,
        "started_at": operation.started_at,
        "finished_at": operation.finished_at,
        "updated_at": operation.updated_at,
    }


def result_lines(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What came of an operation, for people: words and a figure each. Texts, which say what it was for, stay out."""
    lines: list[tuple[str, str]] = []
    for name, value in result.items():
        label = name.replace("_", " ")
        if isinstance(value, Mapping):
            lines += [(f"{label}: {inner}", text) for inner, text in result_lines(value)]
        elif isinstance(value, bool):
            lines.append((label, "yes" if value else "no"))
        elif isinstance(value, int):
            lines.append((label, f"{value:,}"))
    return lines


def progress_document(operation: Operation) -> dict[str, Any]:
    """Counts of items. ``items`` is None until all are written down; until then the plan's count is the best guess."""
    items = operation.items if operation.collected else None
    total = operation.eligible if items is None else items
    kind = kind_named(operation.kind)
    if kind is not None and kind.grows and not operation.is_final:
        # What is written down is never all of it; and it is not over before it is over.
        total = max(operation.items + 1, operation.eligible)
    share = operation.ended / total if total else float(operation.state == OperationState.COMPLETED)
    return {
        "items": items,
        "begun": operation.begun,
        "waiting": operation.in_flight,
        "succeeded": operation.succeeded,
        "failed": operation.failed,
        "skipped": operation.skipped,
        "percent": round(min(1.0, share) * 100, 1),
    }


def item_document(item: OperationItem) -> dict[str, Any]:
    """One item and its outcome."""
    return {
        "id": item.pk,
        "key": item.key,
        "state": item.state,
        "attempts": item.attempts,
        "code": item.code,
        "message": item.message,
        "finished_at": item.finished_at,
    }


def plan_document(kind: str, frozen: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """A dry run."""
    return {
        "kind": kind,
        "filter": frozen,
        "plan": {"eligible": plan.eligible, "ineligible": dict(plan.ineligible)},
        "sample": list(plan.sample),
    }


def kind_document(kind: Kind) -> dict[str, Any]:
    """A kind of operation."""
    return {"name": kind.name, "title": kind.title, "transactional": kind.transactional, "scope": kind.scope.value}
