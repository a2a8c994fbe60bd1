"""``manage.py db_pool``: the connection pools of all processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dbresilience.management.reporting import CRITICAL, FINE, WARNING, ReportCommand, table
from dbresilience.monitor.conf import monitor_settings
from dbresilience.monitor.figures import figures_now


class Command(ReportCommand):
    help = "Show every process's connection pool. Exit status: 0 fine, 1 one is nearly full, 2 unreachable."

    def measure(self, **options: Any) -> tuple[dict[str, Any], int]:
        figures = figures_now(deep=False)
        found = {name: figures[name] for name in ("measured_at", "reachable", "error", "pools", "server")}
        if not figures["reachable"]:
            return found, CRITICAL
        pools = figures["pools"]
        is_full = pools is not None and pools["busiest_percent"] >= monitor_settings().alert_pool_percent
        return found, WARNING if is_full else FINE

    def lines(self, found: dict[str, Any]) -> Iterable[str]:
        if not found["reachable"]:
            yield f"the database does not answer ({found['error']})"
            return
        if (server := found["server"]) is not None:
            yield f"server: {server['client_connections']} of {server['max_connections']} connections"
        if found["pools"] is None:
            yield "no process has reported a pool within the last minute"
            return
        names = ("borrowed", "idle", "overflow", "waiting", "timeouts")
        rows = [
            (process["process"], process["role"], pool["alias"], *(pool[name] for name in names), pool["wait"]["p99"])
            for process in found["pools"]["processes"]
            for pool in process["pools"]
        ]
        yield from table(("process", "role", "database", *names, "wait p99 ms"), rows)
