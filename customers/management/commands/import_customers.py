"""Imports customers from a file."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from customers.importing import runs
from customers.importing.records import Format, UnusableFile
from operations.correlation import correlation_bound
from operations.shell import counted, shell_actor

OnProgress = Callable[[runs.Progress], None]

SOME_REJECTED: Final = 3
INTERRUPTED: Final = 130

_DESCRIPTION: Final = """
Import customers from a CSV or NDJSON file. Each becomes an event, and reaches the integrations at low priority.

CSV has a header of: name, email, phone, address.line1, address.line2, address.city, address.state,
address.postal_code, address.country, metadata.<key>. An empty cell is no value. NDJSON has one JSON object a line, as
the API takes it in POST /api/v1/customers/. Files are UTF-8.
"""
_EPILOG: Final = """
Records that cannot be imported, also those whose e-mail is taken, are written to FILE.rejected.ndjson with the
number of their line and the reason, and stop nothing. Importing the same content again goes on where the last import
stopped, even after a crash, and does nothing, with status 0, when it had finished; --again imports it once more.

exit status:
  0    every record became a customer (or would, in a dry run), or there was nothing left to do
  1    the file cannot be imported
  3    some records were rejected
  130  interrupted; the same command goes on
"""


class Command(BaseCommand):
    help = "Import customers from a CSV or NDJSON file, resumably."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.description, parser.epilog = _DESCRIPTION, _EPILOG
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")
        parser.add_argument("--format", choices=["csv", "ndjson"], help="by default, from the file's name")
        parser.add_argument("--dry-run", action="store_true", help="check every record and write nothing")
        parser.add_argument("--rejected", type=Path, metavar="PATH", help="by default FILE.rejected.ndjson")
        parser.add_argument("--again", action="store_true", help="import this content from its first record again")
        parser.add_argument("--json", action="store_true", help="print the outcome as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if not path.is_file():
            raise CommandError(f"{path} is not a file.")
        format = options["format"] or _format_of(path)
        suffix = ".dry-run.rejected.ndjson" if options["dry_run"] else ".rejected.ndjson"
        rejected_path = options["rejected"] or path.with_name(path.name + suffix)
        began = time.monotonic()
        try:
            with _progress(path.stat().st_size) as on_progress, correlation_bound():
                outcome = self._outcome(path, format, rejected_path, on_progress, options)
        except (UnusableFile, runs.ImportBusy, OSError) as exc:
            raise CommandError(str(exc)) from exc
        except KeyboardInterrupt:
            self.stderr.write("Interrupted; the same command goes on from here.")
            sys.exit(INTERRUPTED)
        self._report(outcome, time.monotonic() - began, rejected_path, options)
        if outcome.rejected and not outcome.was_finished:
            sys.exit(SOME_REJECTED)

    def _outcome(
        self, path: Path, format: Format, rejected_path: Path, on_progress: OnProgress, options: dict[str, Any]
    ) -> runs.Outcome:
        if options["dry_run"]:
            return runs.file_check(path, format=format, rejected_path=rejected_path, on_progress=on_progress)
        actor = shell_actor()
        if options["again"]:
            runs.import_forget(path, format=format, actor=actor)
        return runs.file_import(path, format=format, rejected_path=rejected_path, actor=actor, on_progress=on_progress)

    def _report(self, outcome: runs.Outcome, seconds: float, rejected_path: Path, options: dict[str, Any]) -> None:
        # A path may hold bytes that are no text.
        rejected_file = os.fsencode(rejected_path).decode(errors="replace")
        if options["json"]:
            document = {
                "created": outcome.created,
                "rejected": outcome.rejected,
                "resumed_at": outcome.resumed_at,
                "was_finished": outcome.was_finished,
                "dry_run": options["dry_run"],
                "rejected_file": rejected_file if outcome.rejected else None,
                "seconds": round(seconds, 3),
            }
            self.stdout.write(orjson.dumps(document).decode())
            return
        if outcome.was_finished:
            self.stdout.write("Nothing to do: this content was imported before (--again imports it once more).")
            return
        verb = "would be created" if options["dry_run"] else "created"
        text = f"{counted(outcome.created, 'customer')} {verb}, {counted(outcome.rejected, 'record')} rejected"
        if outcome.rejected:
            text += f" (see {rejected_file})"
        if outcome.resumed_at:
            text += f"; went on after record {outcome.resumed_at:,}"
        self.stdout.write(f"{text}; {seconds:.1f} s")


def _format_of(path: Path) -> Format:
    formats = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}
    try:
        return cast(Format, formats[path.suffix.lower()])
    except KeyError as exc:
        raise CommandError("The file's name does not end with .csv, .ndjson or .jsonl: give --format.") from exc


@contextmanager
def _progress(total: int) -> Iterator[OnProgress]:
    """A progress bar on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda progress: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("customers", total=total)

        def show(progress: runs.Progress) -> None:
            text = f"{progress.created:,} customers, {progress.rejected:,} rejected"
            bar.update(task, completed=progress.bytes_read, description=text)

        yield show
