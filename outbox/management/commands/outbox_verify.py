"""``manage.py outbox_verify``: whether everything fits together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from operations.shell import shell_actor
from outbox.management.reporting import ReportingCommand
from outbox.verifying import outbox_verify


class Command(ReportingCommand):
    """Exits with 1 when something is wrong and was not repaired."""

    help = "Check positions, lanes, order and orphans of the log. Looks only, unless --apply is given."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--whole", action="store_true", help="all of the log, not its last 200,000 places")
        parser.add_argument("--apply", action="store_true", help="repair what can be repaired")

    def handle(self, *args: Any, **options: Any) -> None:
        with self.told():
            found = outbox_verify(apply=options["apply"], actor=shell_actor(), whole=options["whole"])
        lines = []
        for one in found:
            if one.count:
                fate = (
                    f"{one.repaired} repaired" if one.repaired else "--apply repairs it" if one.repairable else "open"
                )
                lines.append(f"{one.check}: {one.count} x {one.meaning} ({', '.join(one.sample)}); {fate}")
        lines.append("something is wrong" if any(one.is_open for one in found) else "all fits together")
        self.report(options, [asdict(one) for one in found], *lines)
        self.finish(wrong=any(one.is_open for one in found))
