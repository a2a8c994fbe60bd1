"""``manage.py stripe_import``: what only Stripe has becomes ours."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from customers.management.operating import OperatingCommand
from customers.models import Drift
from customers.reconciling.kinds import ImportRemote
from operations.models import Operation
from operations.shell import counted

_DESCRIPTION = """
Take Stripe's customers that are not in the catalogue into it, with their links; also those without an e-mail or a name.

What is known here already is neither looked at nor changed. A customer whose e-mail another one here has is kept as an
unlinked record with a proposal; nothing is ever merged. It is an operation: it can be watched, paused and cancelled as
any other, and goes on after a crash.

exit status:
  0    all customers of Stripe are known here now (in a dry run: would be), but those of the last minute
       (RECONCILE_GRACE), which are left to their webhooks
  1    the import did not come to its end
  3    for some of them a person must decide (manage.py drift list)
  130  interrupted; workers go on with it, and so does the same command
"""


class Command(OperatingCommand):
    help = "Import the customers that only Stripe has, resumably."
    description = _DESCRIPTION
    kind = ImportRemote.name
    plans_dry_runs = False

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count them and import nothing")

    def filter_of(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"integration": options["integration"] or "stripe", "dry_run": options["dry_run"]}

    def is_same(self, earlier: dict[str, Any], frozen: dict[str, Any]) -> bool:
        return {**earlier, "until": ""} == {**frozen, "until": ""}

    def lines(self, operation: Operation) -> list[str]:
        result = ImportRemote().result(operation)
        read = f"{counted(result['compared'], 'customer')} of Stripe's read"
        if result["dry_run"]:
            return [f"{read}, {result['missing_here']:,} would be imported."]
        lines = [f"{read}, {result['imported']:,} imported."]
        if waiting := _waiting(operation):
            lines.append(f"{counted(waiting, 'customer')} for a person to decide about: manage.py drift list")
        return lines

    def status_of(self, operation: Operation) -> int:
        return super().status_of(operation) or (3 if _waiting(operation) else 0)


def _waiting(operation: Operation) -> int:
    return Drift.objects.open().filter(operation_id=operation.pk).count()
