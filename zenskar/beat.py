"""What runs when: the one table of periodic tasks, which ``celery beat`` copies into the database.

Every task here is safe to run twice or not at all once: it takes what is due from rows and leaves the rest. So each
entry expires after its period: while no worker runs, no backlog of identical tasks piles up behind it.
"""

from __future__ import annotations

from typing import Any, Final


def _every(seconds: float, task: str) -> dict[str, Any]:
    return {"task": task, "schedule": seconds, "options": {"expire_seconds": max(1, round(seconds))}}


BEAT_SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "outbox": _every(1, "outbox.tasks.drain"),
    "outbox_prune": _every(3600, "outbox.tasks.prune"),
    "webhooks": _every(1, "customers.tasks.webhooks_process"),
    "sync": _every(1, "customers.tasks.sync_due"),
    "messages_poll": _every(300, "customers.tasks.messages_poll"),
    "consistency_fix": _every(86_400, "customers.tasks.consistency_fix"),
    "comparisons": _every(86_400, "customers.tasks.comparisons_begin"),
    "drifts_prune": _every(86_400, "customers.tasks.drifts_prune"),
    "sagas": _every(1, "customers.tasks.sagas_due"),
    "sagas_prune": _every(3600, "customers.tasks.sagas_prune"),
    "failed_syncs": _every(3600, "customers.tasks.failed_syncs_retry"),
    "operations": _every(1, "operations.tasks.operations_run"),
    "projections": _every(1, "projections.tasks.run"),
    "alerts_check": _every(60, "operations.tasks.alerts_check"),
    "alerts_send": _every(5, "operations.tasks.alerts_send"),
    "erasures": _every(60, "customers.tasks.erasures_sweep"),
    "idempotency_clean": _every(3600, "operations.tasks.idempotency_clean"),
    "projections_health": _every(60, "projections.tasks.health_sample"),
    "records_prune": _every(3600, "operations.tasks.records_prune"),
    "database_sample": _every(60, "dbresilience.tasks.sample"),
}
