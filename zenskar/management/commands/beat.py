"""``manage.py beat list|set|reset``: what celery beat sends, and how often."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django_celery_beat.models import PeriodicTask

from operations.errors import ProblemError
from operations.shell import shell_actor
from zenskar.schedule import entries_install, entries_reset, entry_is_edited, entry_set, entry_text


class Command(BaseCommand):
    """A beat that runs takes a change over within seconds."""

    help = "Show when periodic tasks are sent, change that, or put it back to the defaults."

    def add_arguments(self, parser: CommandParser) -> None:
        output = CommandParser(add_help=False)
        output.add_argument("--json", action="store_true", help="print one JSON document")
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("list", parents=[output], help="show all entries")
        change = verbs.add_parser("set", parents=[output], help="have a task sent at another interval; that stays")
        change.add_argument("name")
        change.add_argument("--every", type=int, required=True, metavar="SECONDS")
        reset = verbs.add_parser("reset", parents=[output], help="put entries back to the defaults, switched on")
        reset.add_argument("names", nargs="*", metavar="NAME", help="which ones; none are all")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(options)
        except ProblemError as exc:
            raise CommandError(exc.detail) from exc
        except ValueError as exc:
            raise CommandError(f"--every: {exc}") from exc

    def _list(self, options: dict[str, Any]) -> None:
        rows = PeriodicTask.objects.select_related("interval", "crontab", "solar", "clocked").order_by("name")
        documents = [
            {
                "name": row.name,
                "task": row.task,
                "when": entry_text(row),
                "edited": entry_is_edited(row),
                "paused": not row.enabled,
            }
            for row in rows
        ]
        lines = [
            f"{one['name']}  {one['when']}{'  edited' if one['edited'] else ''}{'  paused' if one['paused'] else ''}"
            for one in documents
        ]
        self._print(documents, lines or ["No entries yet: celery beat makes them when it starts."], options)

    def _set(self, options: dict[str, Any]) -> None:
        entries_install()
        row = entry_set(options["name"], every=options["every"], actor=shell_actor())
        self._print({"name": row.name, "when": entry_text(row)}, [f"{row.name}: {entry_text(row)}"], options)

    def _reset(self, options: dict[str, Any]) -> None:
        reset = entries_reset(options["names"], actor=shell_actor())
        self._print({"reset": reset}, [f"Put back: {', '.join(reset) or 'nothing differed'}."], options)

    def _print(self, document: Any, lines: list[str], options: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(document) if options["json"] else "\n".join(lines))
