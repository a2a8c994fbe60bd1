"""``manage.py retry_failed_syncs``: have failed synchronisations tried again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from customers.management.operating import OperatingCommand
from customers.sync.trying_again import RetryFailedSyncs
from operations.models import Operation
from operations.shell import counted


class Command(OperatingCommand):
    """Exits with 0 when all failed ones are marked to be looked at again, also when there were none."""

    help = "Have failed synchronisations looked at again, after all that is more urgent."
    kind = RetryFailedSyncs.name

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count them only")

    def lines(self, operation: Operation) -> list[str]:
        return [f"{counted(operation.succeeded, 'failed synchronisation')} will be tried again."]

    def dry_run_lines(self, eligible: int) -> list[str]:
        return [f"{counted(eligible, 'failed synchronisation')} would be tried again."]

    def filter_of(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"integration": options["integration"]}
