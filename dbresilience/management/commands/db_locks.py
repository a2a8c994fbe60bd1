"""``manage.py db_locks``: who waits for a lock, and for whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dbresilience.management.reporting import CRITICAL, FINE, WARNING, ReportCommand, table
from dbresilience.monitor.figures import figures_now


class Command(ReportCommand):
    help = (
        "Show sessions that wait for a lock, whom they wait for, and long transactions. Exit status: 0 nobody waits, "
        "1 somebody does, 2 unreachable."
    )

    def measure(self, **options: Any) -> tuple[dict[str, Any], int]:
        figures = figures_now(deep=False)
        names = ("measured_at", "reachable", "error", "blocked_sessions", "long_transactions")
        found = {name: figures[name] for name in names}
        if found["blocked_sessions"] is None:
            return found, CRITICAL
        return found, WARNING if found["blocked_sessions"] else FINE

    def lines(self, found: dict[str, Any]) -> Iterable[str]:
        if found["blocked_sessions"] is None:
            yield f"the database does not answer ({found['error']})"
            return
        if not found["blocked_sessions"]:
            yield "nobody waits for a lock"
        else:
            yield from table(
                ("process", "waits s", "table", "blocked by", "which is", "statement"),
                (
                    (
                        str(row["pid"]),
                        row["seconds"],
                        row["relation"] or "",
                        ", ".join(str(pid) for pid in row["blocked_by"]),
                        row["blocking_state"] or "",
                        row["statement"],
                    )
                    for row in found["blocked_sessions"]
                ),
            )
        for row in found["long_transactions"] or []:
            yield f"open for {row['seconds']:.0f} s: process {row['pid']} ({row['application']}, {row['state']})"
