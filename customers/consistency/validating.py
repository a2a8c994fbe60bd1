"""All checks at once, counted as far as there is time: what holds, and what does not."""

from __future__ import annotations

import time
from typing import Any, Final

from django.db import connection
from django.utils import timezone

from customers.consistency.checks import CHECKS, Check
from customers.instants import instant_text
from customers.integrations import Integration, integrations
from customers.models import ReconcileRun
from dbresilience.errors import DeadlineExceeded
from dbresilience.transactions import run_in_transaction

COUNTED_AT_MOST: Final = 1_000
_SAMPLE: Final = 5


def consistency_validate(*, integration: str = "", seconds: float = 3.0) -> dict[str, Any]:
    """What breaks the rules, as JSON; nothing is changed, and no integration is asked.

    Args:
        integration: name of the only one; empty for all.
        seconds: for all queries together. What was not reached in that time has no count, and ``complete`` is false.
    """
    ends = time.monotonic() + seconds
    chosen = {name: one for name, one in integrations().items() if integration in ("", name)}
    found = [_checked(check, one, ends) for one in chosen.values() for check in CHECKS]
    complete = all(one["count"] is not None for one in found)
    return {
        "checked_at": instant_text(timezone.now()),
        "integration_name": integration or None,
        "consistent": complete and not any(one["count"] for one in found),
        "complete": complete,
        "checks": found,
        "last_comparisons": {name: last_comparison(name) for name in chosen},
    }


def last_comparison(integration: str) -> dict[str, Any] | None:
    """When both sides were compared whole last, and what that counted; None: never."""
    run = ReconcileRun.objects.filter(integration=integration, complete=True).order_by("-pk").first()
    if run is None:
        return None
    return {
        "operation": run.operation_id,
        "finished_at": instant_text(run.finished_at) if run.finished_at else None,
        "compared": run.compared,
        "missing_here": run.missing,
        "imported": run.imported,
    }


def _checked(check: Check, integration: Integration, ends: float) -> dict[str, Any]:
    keys = _broken(check, integration, ends - time.monotonic())
    return {
        "name": check.name,
        "integration_name": integration.name,
        "title": check.title,
        "count": None if keys is None else min(len(keys), COUNTED_AT_MOST),
        "more": keys is not None and len(keys) > COUNTED_AT_MOST,
        "sample": (keys or [])[:_SAMPLE],
        "fixable": check.fix is not None,
        "advice": check.advice,
    }


def _broken(check: Check, integration: Integration, seconds: float) -> list[str] | None:
    """Keys of what breaks a rule; None when there was no time to find out."""
    if seconds <= 0:
        return None
    # Inside another's transaction its limits hold: an operation that is planned together with the answer to its key.
    alone = not connection.in_atomic_block
    try:
        return run_in_transaction(
            lambda: check.broken(integration, after="", limit=COUNTED_AT_MOST + 1),
            deadline=seconds if alone else None,
            read_only=alone,
            repeatable=not alone,
        )
    except DeadlineExceeded:
        return None
