"""The connection pools of all processes, as each reported its own."""

from __future__ import annotations

from typing import Any

from dbresilience.monitor.connection import MonitorConnection
from dbresilience.monitor.queries import PROCESSES_SQL
from dbresilience.observations.processes import pools_of_this_process, process_name

_SUMMED = ("size", "max_overflow", "open", "idle", "borrowed", "overflow", "waiting", "requests", "timeouts", "lost")


def pools(connection: MonitorConnection) -> dict[str, Any] | None:
    """Each process's pools and their sum; this process's as they are now. None when no process has a pool."""
    reports = {row["process"]: row for row in connection.execute(PROCESSES_SQL).fetchall()}
    if own := pools_of_this_process():
        known = reports.get(process_name(), {"role": ""})
        reports[process_name()] = {"process": process_name(), "role": known["role"], "pools": own}
    processes = [reports[name] for name in sorted(reports)]
    figures = [pool for process in processes for pool in process["pools"]]
    if not figures:
        return None
    total = {name: sum(pool[name] for pool in figures) for name in _SUMMED}
    capacity = total["size"] + total["max_overflow"]
    return {
        "total": total | {"utilisation_percent": round(100 * total["borrowed"] / capacity, 1) if capacity else None},
        # One full pool among idle ones is what hurts, and what a sum hides.
        "busiest_percent": round(100 * max(pool["utilisation"] for pool in figures), 1),
        "wait_ms": _worst(figures, "wait"),
        "hold_ms": _worst(figures, "hold"),
        "processes": processes,
    }


def _worst(figures: list[dict[str, Any]], name: str) -> dict[str, float | None]:
    """Percentiles of the worst process: those of several cannot be added up."""
    found: dict[str, float | None] = {}
    for share in ("p50", "p95", "p99"):
        values = [pool[name][share] for pool in figures if pool[name][share] is not None]
        found[share] = max(values) if values else None
    return found
