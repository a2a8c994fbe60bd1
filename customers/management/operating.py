"""What commands have in common that carry out an operation: they start it, work on it, and show how far it is."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from rest_framework.exceptions import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from operations.correlation import correlation_bound
from operations.errors import ProblemError
from operations.long_actions.beginning import operation_begin
from operations.long_actions.documents import operation_document, plan_document, progress_document
from operations.long_actions.planning import operation_plan
from operations.long_actions.runner import operation_run
from operations.long_actions.steering import operation_cancel, operation_start
from operations.models import Operation, OperationState
from operations.shell import shell_actor

INTERRUPTED: Final = 130
SLICE_SECONDS: Final = 0.5


class OperatingCommand(BaseCommand):
    """A command that carries out an operation of one kind, and takes part in it until it is over.

    Killed or interrupted, it leaves the operation to the workers; started again with the same options, it goes on with
    it. Exits with 1 when an item failed or the operation did not come to its end, 130 when interrupted.

    Attributes:
        kind: name of the kind.
        plans_dry_runs: whether ``--dry-run`` only counts; otherwise the kind makes the dry run itself.
        description: for ``--help``.
    """

    kind: ClassVar[str]
    plans_dry_runs: ClassVar[bool] = True
    description: ClassVar[str] = ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        if self.description:
            parser.description, parser.formatter_class = self.description, argparse.RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--integration", default="", metavar="NAME", help="of one integration; of all by default")
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.add_argument("--reason", default="", help="why, for the audit trail")
        parser.add_argument("--again", action="store_true", help="cancel an earlier one that is not over; begin anew")
        self.add_own_arguments(parser)

    def add_own_arguments(self, parser: CommandParser) -> None:
        """Arguments of this command alone."""

    def filter_of(self, options: dict[str, Any]) -> dict[str, Any]:
        """The filter that the options mean."""
        raise NotImplementedError

    def lines(self, operation: Operation) -> list[str]:
        """What came of it, for people."""
        raise NotImplementedError

    def dry_run_lines(self, eligible: int) -> list[str]:
        """What would be done, for people."""
        raise NotImplementedError

    def status_of(self, operation: Operation) -> int:
        """The exit status of an operation that is over."""
        return 1 if operation.failed or operation.state != OperationState.COMPLETED else 0

    def handle(self, *args: Any, **options: Any) -> None:
        filter = self.filter_of(options)
        try:
            if self.plans_dry_runs and options.get("dry_run"):
                frozen, plan = operation_plan(kind=self.kind, filter=filter)
                self._print(plan_document(self.kind, frozen, plan), self.dry_run_lines(plan.eligible), options)
                return
            with correlation_bound():
                operation = self._started(filter, options)
                operation = self._carried_out(operation)
        except ProblemError as exc:
            raise CommandError(exc.detail) from exc
        except ValidationError as exc:
            raise CommandError(_told(exc)) from exc
        lines = self.lines(operation)
        if operation.note:
            lines.append(f"Operation {operation.pk} is {operation.state}: {operation.note}")
        self._print(operation_document(operation), lines, options)
        if status := self.status_of(operation):
            sys.exit(status)

    def _started(self, filter: dict[str, Any], options: dict[str, Any]) -> Operation:
        """A new operation, or the earlier one with the same filter that is not over."""
        actor = shell_actor()
        frozen, _ = operation_plan(kind=self.kind, filter=filter)
        found: list[Operation] = []

        def under_way() -> Operation | None:
            rows = Operation.objects.open().filter(kind=self.kind).order_by("pk")
            same = [earlier for earlier in rows if self.is_same(earlier.filter, frozen)]
            if options["again"]:
                for earlier in same:
                    operation_cancel(operation_id=earlier.pk, actor=actor, note="Begun anew.")
                same = []
            # One that was begun before one that was only planned.
            found[:] = sorted(same, key=lambda earlier: (earlier.state == OperationState.PLANNED, earlier.pk))[:1]
            if not found:
                return None
            is_new = found[0].state == OperationState.PLANNED
            return operation_start(operation_id=found[0].pk, actor=actor) if is_new else found[0]

        reason = options["reason"] or f"manage.py {type(self).__module__.rpartition('.')[2]}"
        operation = operation_begin(kind=self.kind, filter=filter, reason=reason, actor=actor, under_way=under_way)
        if found:
            self.stderr.write(f"Going on with operation {operation.pk}, begun before (--again begins anew).")
        return operation

    def is_same(self, earlier: dict[str, Any], frozen: dict[str, Any]) -> bool:
        """Whether an earlier operation that is not over is what is asked for now."""
        return earlier == frozen

    def _carried_out(self, operation: Operation) -> Operation:
        try:
            with _progress() as show:
                while True:
                    operation = operation_run(operation.pk, seconds=SLICE_SECONDS)
                    show(operation)
                    if operation.state != OperationState.RUNNING and not operation.in_flight:
                        return operation
        except KeyboardInterrupt:
            text = f"Interrupted. Workers go on with operation {operation.pk}; so does this command."
            self.stderr.write(f"{text} To stop it: manage.py operations cancel {operation.pk}")
            sys.exit(INTERRUPTED)

    def _print(self, document: dict[str, Any], lines: list[str], options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(document, cls=DjangoJSONEncoder) if options["json"] else "\n".join(lines))


@contextmanager
def _progress() -> Iterator[Any]:
    """A progress bar on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda operation: None
        return
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("", total=100)

        def show(operation: Operation) -> None:
            text = f"operation {operation.pk}: {operation.ended:,} done"
            bar.update(task, completed=progress_document(operation)["percent"], description=text)

        yield show


def _told(exc: ValidationError) -> str:
    detail: Any = exc.detail
    while isinstance(detail, dict | list) and detail:
        detail = next(iter(detail.values())) if isinstance(detail, dict) else detail[0]
    return str(detail)
