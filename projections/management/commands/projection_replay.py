"""``manage.py projection_replay NAME``: compute anew what a range of the log touched, as an operation."""

from __future__ import annotations

from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rest_framework.exceptions import ValidationError

from operations.errors import ProblemError
from operations.long_actions.documents import operation_document
from operations.long_actions.planning import operation_plan
from operations.shell import counted, shell_actor
from projections.management.printing import as_json, named_refusals
from projections.replaying import ReplayKind, replay_start

OPTIONS: Final = {
    "filter": "",
    "projection": "",
    "from_sequence": "--from",
    "to_sequence": "--to",
    "aggregate_type": "--aggregate",
    "aggregate_id": "--aggregate",
}
"""What refusals call a field, and what it is called here."""


class Command(BaseCommand):
    help = "Plan a replay; --apply starts it as an operation, which workers carry out."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("projection")
        parser.add_argument("--from", dest="begin", type=int, metavar="POSITION", help="else from the checkpoint")
        parser.add_argument("--to", dest="end", type=int, metavar="POSITION", help="else to the head")
        parser.add_argument("--aggregate", metavar="TYPE:ID", help="only this one")
        parser.add_argument("--rate", type=float, help="items of 500 positions a second, at most")
        parser.add_argument("--reason", default="")
        parser.add_argument("--apply", action="store_true", help="start it; without, it is only counted")
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        kind, colon, key = (options["aggregate"] or "").partition(":")
        if options["aggregate"] and not (kind and colon and key):
            raise CommandError("--aggregate must look like type:id.")
        ends = {"from_sequence": options["begin"], "to_sequence": options["end"]}
        try:
            if not options["apply"]:
                what = {"projection": options["projection"], **ends, "aggregate_type": kind, "aggregate_id": key}
                frozen, plan = operation_plan(kind=ReplayKind.name, filter=what)
                document: Any = {"filter": frozen, "items": plan.eligible}
                begin, end = frozen["from_sequence"], frozen["to_sequence"]
                ranged = f"positions {begin} to {end}" if begin <= end else "nothing after the checkpoint"
                line = f"{counted(plan.eligible, 'item')}, {ranged}; --apply starts it"
            else:
                operation = replay_start(
                    name=options["projection"],
                    actor=shell_actor(),
                    **ends,
                    aggregate=(kind, key) if kind else None,
                    rate=options["rate"],
                    reason=options["reason"],
                )
                document = operation_document(operation)
                line = f"operation {operation.pk} is under way: manage.py operations show {operation.pk}"
        except ProblemError as exc:
            raise CommandError(exc.detail) from exc
        except ValidationError as exc:
            raise CommandError(named_refusals(exc.detail, OPTIONS)) from exc
        self.stdout.write(as_json(document) if options["json"] else line)
