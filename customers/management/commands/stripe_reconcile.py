"""``manage.py stripe_reconcile``: compare the catalogue with Stripe, and mend what is safe."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from customers.management.operating import OperatingCommand
from customers.models import Drift
from customers.reconciling.kinds import Reconcile
from operations.models import Operation
from operations.shell import counted

_DESCRIPTION = """
Read all of Stripe's customers, within its rate and after all that is more urgent, and compare them with the catalogue.

What is safe by rule is mended. The rest becomes proposals, for a person to accept or decline (manage.py drift, the
console, the API). It is an operation: it can be watched, paused and cancelled as any other, and goes on after a crash.

exit status:
  0    both sides agree, or do so once what was mended is synchronised
  1    the comparison did not come to its end
  3    there are differences that a person must decide about (in a dry run: any difference)
  130  interrupted; workers go on with it, and so does the same command
"""


class Command(OperatingCommand):
    help = "Compare the catalogue with Stripe; mend what is safe and propose the rest."
    description = _DESCRIPTION
    kind = Reconcile.name
    plans_dry_runs = False

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="write differences down and mend nothing")
        parser.add_argument(
            "--only", action="append", default=[], choices=Drift.Kind.values, help="only this kind of difference"
        )

    def filter_of(self, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "integration": options["integration"] or "stripe",
            "dry_run": options["dry_run"],
            "only": options["only"],
        }

    def is_same(self, earlier: dict[str, Any], frozen: dict[str, Any]) -> bool:
        return {**earlier, "until": ""} == {**frozen, "until": ""}

    def lines(self, operation: Operation) -> list[str]:
        result = Reconcile().result(operation)
        found = ", ".join(f"{count:,} {kind}" for kind, count in sorted(result["differences"].items())) or "none"
        lines = [f"{counted(result['compared'], 'record')} compared, differences: {found}."]
        if result["dry_run"]:
            by_rule, asked = result["repairable"], result["proposed"]
            lines.append(f"{by_rule:,} would be mended by rule; {asked:,} would be asked about.")
            if by_rule or asked:
                lines.append("Nothing was mended. Which they are: manage.py drift list")
        else:
            done = result["repaired"] + result["imported"]
            lines.append(f"{done:,} mended by rule, {result['imported']:,} of them imported.")
            if waiting := result["proposed"] + result["repairable"]:
                lines.append(f"{counted(waiting, 'difference')} for a person: manage.py drift list")
        return lines

    def status_of(self, operation: Operation) -> int:
        if status := super().status_of(operation):
            return status
        result = Reconcile().result(operation)
        return 3 if result["proposed"] or result["repairable"] else 0
