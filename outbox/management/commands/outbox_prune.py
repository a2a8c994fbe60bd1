"""``manage.py outbox_prune``: remove what is older than it is kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from operations.audit import audit_record
from operations.shell import shell_actor
from outbox.management.reporting import ReportingCommand
from outbox.pruning import rows_prunable, rows_prune
from outbox.retention import partitions_prune


class Command(ReportingCommand):
    help = "Drop partitions of the log that nobody needs any more, and rows that are old. Says only, unless --apply."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--seconds", type=float, default=300.0, help="begin no further batch of rows after that")
        parser.add_argument("--apply", action="store_true", help="do it")

    def handle(self, *args: Any, **options: Any) -> None:
        with self.told():
            rows = rows_prune(seconds=options["seconds"]) if options["apply"] else rows_prunable()
            partitions = partitions_prune(apply=options["apply"])
        dropped = [one.name for one in partitions if one.dropped]
        if dropped:
            audit_record(actor=shell_actor(), action="outbox.pruned", detail={"partitions": dropped})
        document = {"rows": rows, "partitions": [asdict(one) for one in partitions], "applied": options["apply"]}
        verb = "removed" if options["apply"] else "would be removed"
        lines = [f"{count} {name} {verb}" for name, count in rows.items()]
        lines += [
            f"{one.name}: {one.obstacle or ('dropped' if one.dropped else 'would be dropped')}" for one in partitions
        ]
        self.report(options, document, *lines)
