"""``manage.py projection_failures list|resolve``: events that could not be applied, and what becomes of them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from operations.errors import ProblemError
from operations.shell import shell_actor
from projections.documents import failure_document
from projections.management.printing import as_json
from projections.models import Failure, Strategy
from projections.models.failure import ACTIVE
from projections.registry import projection_named
from projections.resolving import AlreadyResolved, failure_resolve


class Command(BaseCommand):
    """``list`` exits with 1 when there is something to resolve."""

    help = "List the failures of read models, or resolve some."

    def add_arguments(self, parser: CommandParser) -> None:
        output = CommandParser(add_help=False)
        output.add_argument("--json", action="store_true", help="print one JSON document")
        verbs = parser.add_subparsers(dest="verb", required=True)

        found = verbs.add_parser("list", parents=[output], help="show active failures, newest first")
        found.add_argument("--projection")
        found.add_argument("--limit", type=int, default=50)

        resolve = verbs.add_parser("resolve", parents=[output], help="decide what becomes of failures")
        resolve.add_argument("id", type=int, nargs="+")
        resolve.add_argument("--strategy", required=True, choices=Strategy.values)
        resolve.add_argument("--note", default="", help="required by manual_fix")
        resolve.add_argument("--compensation", default="", help="name of a registered function")

    def handle(self, *args: Any, **options: Any) -> None:
        documents = self._list(options) if options["verb"] == "list" else self._resolve(options)
        if options["json"]:
            self.stdout.write(as_json(documents))
        else:
            self.stdout.write("\n".join(map(_line, documents)) or "No active failures.")
        if options["verb"] == "list" and documents:
            raise SystemExit(1)

    def _list(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        rows = Failure.objects.filter(state__in=ACTIVE)
        if options["projection"]:
            try:
                projection_named(options["projection"])
            except ProblemError as exc:
                raise CommandError(exc.detail) from exc
            rows = rows.filter(projection=options["projection"])
        return [failure_document(row, with_detail=True) for row in rows.order_by("-pk")[: max(1, options["limit"])]]

    def _resolve(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        done: list[dict[str, Any]] = []
        active = set(Failure.objects.filter(pk__in=options["id"], state__in=ACTIVE).values_list("pk", flat=True))
        for number in options["id"]:
            try:
                failure = failure_resolve(
                    failure_id=number,
                    strategy=options["strategy"],
                    actor=shell_actor(),
                    note=options["note"],
                    compensation=options["compensation"],
                )
            except ProblemError as exc:
                if not isinstance(exc, AlreadyResolved) or number not in active:
                    before = f" This command resolved before it: {', '.join(str(one['id']) for one in done)}."
                    raise CommandError(f"{number}: {exc.detail}{before if done else ''}") from exc
                # Skipped with the same event of another build a moment ago.
                failure = Failure.objects.get(pk=number)
            done.append(failure_document(failure, with_detail=True))
        return done


def _line(one: dict[str, Any]) -> str:
    message = (one["error_message"].splitlines() or [""])[0][:120]
    return (
        f"{one['id']}  {one['projection']} #{one['build']}  {one['state']}  {one['event_type']} of"
        f" {one['aggregate_type']} {one['aggregate_id']}  {one['error_class']} {one['error_type']}: {message}"
    )
