"""``manage.py drift list|accept|decline``: differences between both sides that a person must decide about."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from customers.errors import CustomerError
from customers.models import Drift
from customers.reconciling.decisions import drifts_accept, drifts_decline
from customers.reconciling.documents import conflict_left, drift_document
from operations.long_actions.runner import operation_run
from operations.models import OperationItem
from operations.shell import counted, shell_actor

_SECONDS = 60.0


class Command(BaseCommand):
    """``list`` exits with 1 when any waits for a person; the others when one could not be repaired or decided."""

    help = "List differences between both sides, and have them repaired or left as they are."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        output = CommandParser(add_help=False)
        output.add_argument("--json", action="store_true", help="print one JSON document")

        found = verbs.add_parser("list", parents=[output], help="show differences, newest first")
        found.add_argument("--status", choices=Drift.Status.values, default=Drift.Status.OPEN.value)
        found.add_argument("--kind", choices=Drift.Kind.values)
        found.add_argument("--limit", type=int, default=50)

        for verb, text in (("accept", "have them repaired"), ("decline", "leave them as they are")):
            decide = verbs.add_parser(verb, parents=[output], help=text)
            decide.add_argument("ids", type=int, nargs="+", metavar="ID")
            decide.add_argument("--reason", default="", help="why, for the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(options)
        except CustomerError as exc:
            raise CommandError(exc.detail) from exc

    def _list(self, options: dict[str, Any]) -> None:
        if options["limit"] < 1:
            raise CommandError("--limit must be at least 1.")
        rows = Drift.objects.filter(status=options["status"]).order_by("-pk")
        if options["kind"]:
            rows = rows.filter(kind=options["kind"])
        documents = [drift_document(row, readable=True) for row in rows[: options["limit"]]]
        lines = [_line(one) for one in documents] or ["No difference is there."]
        self._print(documents, lines, options)
        if options["status"] == Drift.Status.OPEN and rows.filter(safe=False).exists():
            raise SystemExit(1)

    def _accept(self, options: dict[str, Any]) -> None:
        done = drifts_accept(ids=options["ids"], actor=shell_actor(), reason=options["reason"])
        operation = operation_run(done.operation.pk, seconds=_SECONDS)
        items = OperationItem.objects.filter(operation=operation).order_by("pk")
        lines = [f"{item.key}: {item.message or item.state}" for item in items]
        refused = sorted(set(options["ids"]) - set(done.ids))
        lines += [f"{pk}: not open, or nothing can be done about it from here" for pk in refused]
        self._print(
            {"operation": operation.pk, "repaired": operation.succeeded, "not_accepted": refused}, lines, options
        )
        if refused or operation.succeeded != len(done.ids):
            raise SystemExit(1)

    def _decline(self, options: dict[str, Any]) -> None:
        done = drifts_decline(ids=options["ids"], actor=shell_actor(), reason=options["reason"])
        count, left = len(done.ids), [conflict_left(one) for one in done.conflicts]
        lines = [f"{counted(count, 'difference')} left as {'it is' if count == 1 else 'they are'}."]
        lines += [f"Conflict {one['id']} ({one['kind']}) stays open. {one['advice']}" for one in left]
        self._print({"declined": count, "conflicts": left}, lines, options)
        if count != len(set(options["ids"])):
            raise SystemExit(1)

    def _print(self, document: Any, lines: list[str], options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(document, cls=DjangoJSONEncoder) if options["json"] else "\n".join(lines))


def _line(one: dict[str, Any]) -> str:
    fields = "; ".join(
        f"{row['field']}: here {json.dumps(row['ours'])}, there {json.dumps(row['theirs'])}" for row in one["fields"]
    )
    by_rule = "safe by rule: the next comparison makes it" if one["safe"] and one["status"] == Drift.Status.OPEN else ""
    why = f" ({text})" if (text := one["why_not"] or by_rule) else ""
    what = f"{one['id']}  {one['kind']}  {one['subject']}  {fields or one['detail']}"
    return f"{what}  repair: {one['repair'] or 'none'}{why}"
