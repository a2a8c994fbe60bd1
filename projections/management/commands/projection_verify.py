"""``manage.py projection_verify [NAME …]``: recompute read models from the log, another way, and compare."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from operations.errors import ProblemError
from operations.shell import counted
from projections.management.printing import as_json
from projections.models import Build
from projections.registry import projection_names
from projections.verifying import Verified, projection_verify


class Command(BaseCommand):
    """Exits with 1 when a row differs."""

    help = (
        "Compare read models with what follows from the log. Runners may go on meanwhile; all rows are held in memory."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("projection", nargs="*", help="else all")
        parser.add_argument("--build", type=int, help="one build of it; else the one that readers see")
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        names: list[str] = options["projection"] or projection_names()
        if options["build"] is not None and len(names) != 1:
            raise CommandError("--build needs the name of its projection.")
        try:
            found = [projection_verify(name=name, build_id=options["build"]) for name in names]
        except ProblemError as exc:
            raise CommandError(exc.detail) from exc
        except Build.DoesNotExist as exc:
            raise CommandError("Nothing has been built yet, or there is no such build.") from exc
        if options["json"]:
            self.stdout.write(as_json([asdict(one) for one in found]))
        else:
            self.stdout.write("\n".join(line for one in found for line in _lines(one)))
        if any(one.count for one in found):
            raise SystemExit(1)


def _lines(one: Verified) -> list[str]:
    result = "as it should be" if not one.count else f"{counted(one.count, 'difference')}"
    size = f"{counted(one.rows, 'row')} of {counted(one.events, 'event')}"
    first = f"{one.projection} #{one.build} at {one.cursor}: {size}, {result}"
    lines = [first, *(f"  {difference}" for difference in one.differences)]
    if one.count and one.put_right:
        lines.append(f"  {counted(one.put_right, 'event')} of it put right by a person: such rows differ from the log")
    return lines
