"""The base of the commands that report on the database."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser

FINE: Final = 0
WARNING: Final = 1
CRITICAL: Final = 2


class ReportCommand(BaseCommand):
    """Measures, prints as text or JSON, and exits with 0 (fine), 1 (warning) or 2 (critical, unreachable)."""

    # A database that is away, or a misconfiguration, is what these commands are there to tell of.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON instead of text")

    def handle(self, *args: Any, **options: Any) -> None:
        found, status = self.measure(**options)
        if options["json"]:
            self.stdout.write(json.dumps(found, indent=2))
        else:
            for line in self.lines(found):
                self.stdout.write(line)
        if status != FINE:
            raise SystemExit(status)

    def measure(self, **options: Any) -> tuple[dict[str, Any], int]:
        """What was found, as JSON, and the exit status."""
        raise NotImplementedError

    def lines(self, found: dict[str, Any]) -> Iterable[str]:
        """The same for a person."""
        raise NotImplementedError


def shown(value: Any, unit: str = "") -> str:
    """A figure as text; one that is None was not measured."""
    if value is None:
        return "not measured"
    return f"{value:,}{unit}" if isinstance(value, int | float) else f"{value}{unit}"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Rows in columns; the last one is as wide as it is."""
    texts = [list(heads), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts]
