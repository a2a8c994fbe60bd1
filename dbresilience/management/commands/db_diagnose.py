"""``manage.py db_diagnose``: a closer look at the database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dbresilience.management.reporting import CRITICAL, FINE, WARNING, ReportCommand, table
from dbresilience.monitor.diagnostics import database_diagnostics


class Command(ReportCommand):
    help = "Ask every question about the database. Exit status: 0 all fine, 1 a warning, 2 something critical."

    def measure(self, **options: Any) -> tuple[dict[str, Any], int]:
        found = database_diagnostics()
        results = {finding["result"] for finding in found["findings"]}
        status = CRITICAL if "critical" in results else WARNING if "warning" in results else FINE
        return found, status

    def lines(self, found: dict[str, Any]) -> Iterable[str]:
        yield from table(
            ("check", "result", "finding"),
            ((finding["check"], finding["result"], finding["message"]) for finding in found["findings"]),
        )
        for text in found["recommendations"]:
            yield f"recommended: {text}"
