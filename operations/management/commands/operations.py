"""``manage.py operations list|kinds|show|plan|start|pause|resume|cancel``: long actions from the shell."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from rest_framework.exceptions import ValidationError

from operations.errors import ProblemError
from operations.long_actions.documents import (
    item_document,
    kind_document,
    operation_document,
    plan_document,
    result_lines,
)
from operations.long_actions.errors import OperationNotFound
from operations.long_actions.kinds import kind_named, kinds
from operations.long_actions.planning import Pace, operation_create, operation_plan
from operations.long_actions.steering import VERBS, operation_steer
from operations.models import ItemState, Operation, OperationItem, OperationState
from operations.shell import shell_actor

SHOWN_ITEMS = 20


class Command(BaseCommand):
    """Exits with 1 when the operation that was asked about failed, stopped by itself or has failed items."""

    help = "Plan, steer and look at long actions."

    def add_arguments(self, parser: CommandParser) -> None:
        output = CommandParser(add_help=False)
        output.add_argument("--json", action="store_true", help="print one JSON document")
        verbs = parser.add_subparsers(dest="verb", required=True)

        found = verbs.add_parser("list", parents=[output], help="show operations, newest first")
        found.add_argument("--state", choices=OperationState.values)
        found.add_argument("--kind")
        found.add_argument("--limit", type=int, default=20)

        verbs.add_parser("kinds", parents=[output], help="show the kinds of operations")

        show = verbs.add_parser("show", parents=[output], help="show one operation and what did not succeed")
        show.add_argument("id", type=int)

        plan = verbs.add_parser("plan", parents=[output], help="count what a filter matches; --keep plans it")
        plan.add_argument("kind")
        plan.add_argument("--filter", type=_json, default={}, metavar="JSON")
        plan.add_argument("--keep", action="store_true", help="keep the plan as an operation that can be started")
        plan.add_argument("--reason", default="", help="why; required with --keep")
        plan.add_argument("--canary", type=int, default=0, metavar="ITEMS")
        plan.add_argument("--rate", type=float, metavar="PER_SECOND")
        plan.add_argument("--ramp-seconds", type=int, default=0)
        plan.add_argument("--stop-error-rate", type=float, default=0.5, metavar="SHARE")

        for verb in VERBS:
            steer = verbs.add_parser(verb, parents=[output], help=f"{verb} one operation")
            steer.add_argument("id", type=int)
            steer.add_argument("--note", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        verb: str = options["verb"]
        try:
            if verb in VERBS:
                self._steer(verb, options)
            else:
                getattr(self, f"_{verb}")(options)
        except ProblemError as exc:
            raise CommandError(exc.detail) from exc
        except ValidationError as exc:
            raise CommandError(json.dumps(exc.detail)) from exc

    def _list(self, options: dict[str, Any]) -> None:
        if options["kind"] and kind_named(options["kind"]) is None:
            raise CommandError(f"--kind: One of: {', '.join(kind.name for kind in kinds())}.")
        rows = Operation.objects.order_by("-pk")
        for name in ("state", "kind"):
            if options[name]:
                rows = rows.filter(**{name: options[name]})
        documents = [operation_document(row) for row in rows[: max(1, options["limit"])]]
        self._print(documents, [_line(one) for one in documents] or ["No operations."], options)

    def _kinds(self, options: dict[str, Any]) -> None:
        documents = [kind_document(kind) for kind in kinds()]
        self._print(documents, [f"{one['name']}  {one['title']}" for one in documents], options)

    def _show(self, options: dict[str, Any]) -> None:
        operation = Operation.objects.filter(pk=options["id"]).first()
        if operation is None:
            raise OperationNotFound
        odd = OperationItem.objects.filter(operation=operation, state__in=[ItemState.FAILED, ItemState.SKIPPED])
        items = [item_document(row) for row in odd.order_by("pk")[:SHOWN_ITEMS]]
        document = operation_document(operation) | {"not_succeeded": items}
        lines = [_line(document), f"  because: {operation.reason}", f"  filter: {json.dumps(operation.filter)}"]
        lines += [f"  not eligible: {why}: {count}" for why, count in operation.ineligible.items()]
        lines += [f"  {label}: {figure}" for label, figure in result_lines(document["result"]) if operation.begun]
        lines += [f"  {one['key']}: {one['state']} {one['code']} {one['message']}".rstrip() for one in items]
        self._print(document, lines, options)
        if operation.failed or operation.state == OperationState.FAILED:
            raise SystemExit(1)

    def _plan(self, options: dict[str, Any]) -> None:
        what = {"kind": options["kind"], "filter": options["filter"]}
        if not options["keep"]:
            document = plan_document(options["kind"], *operation_plan(**what))
            counted = document["plan"]
            lines = [f"{counted['eligible']} eligible"]
            lines += [f"{count} not eligible: {why}" for why, count in counted["ineligible"].items()]
            self._print(document, lines, options)
            return
        pace = Pace(
            canary=options["canary"],
            rate=options["rate"],
            ramp_seconds=options["ramp_seconds"],
            stop_error_rate=options["stop_error_rate"],
        )
        operation = operation_create(**what, reason=options["reason"], actor=shell_actor(), pace=pace)
        self._print_one(operation, options)

    def _steer(self, verb: str, options: dict[str, Any]) -> None:
        operation = operation_steer(verb=verb, operation_id=options["id"], actor=shell_actor(), note=options["note"])
        self._print_one(operation, options)

    def _print_one(self, operation: Operation, options: dict[str, Any]) -> None:
        document = operation_document(operation)
        self._print(document, [_line(document)], options)

    def _print(self, document: Any, lines: list[str], options: dict[str, Any]) -> None:
        text = json.dumps(document, cls=DjangoJSONEncoder) if options["json"] else "\n".join(lines)
        self.stdout.write(text)


def _line(one: dict[str, Any]) -> str:
    progress = one["progress"]
    of = one["plan"]["eligible"] if progress["items"] is None else progress["items"]
    counts = ", ".join(f"{progress[name]} {name}" for name in ("succeeded", "failed", "skipped", "waiting"))
    note = f"  ({one['note']})" if one["note"] else ""
    return f"{one['id']}  {one['kind']}  {one['state']}  {progress['percent']:g} % of {of}: {counts}{note}"


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ArgumentTypeError(f"{text!r} is not JSON") from exc
    if not isinstance(value, dict):
        raise ArgumentTypeError("the filter must be a JSON object")
    return value
