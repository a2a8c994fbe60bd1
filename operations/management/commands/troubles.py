"""``manage.py troubles list|groups|retry``: what needs a person, from the shell."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from operations.errors import ProblemError
from operations.shell import shell_actor
from operations.troubles.documents import group_document, trouble_document
from operations.troubles.services import source_of, troubles_groups, troubles_page, troubles_retry
from operations.troubles.sources import TroubleSource, sources


class Command(BaseCommand):
    """``list`` and ``groups`` exit with 1 when there is any trouble."""

    help = "Show what needs a person, and retry it."

    def add_arguments(self, parser: CommandParser) -> None:
        output = CommandParser(add_help=False)
        output.add_argument("--json", action="store_true", help="print one JSON document")
        output.add_argument("--source", help="only of this source")
        output.add_argument("--group", help="only of this kind")
        verbs = parser.add_subparsers(dest="verb", required=True)
        verbs.add_parser("groups", parents=[output], help="show the kinds of trouble, those seen last first")
        found = verbs.add_parser("list", parents=[output], help="show troubles")
        found.add_argument("--limit", type=int, default=50)
        retry = verbs.add_parser("retry", parents=[output], help="retry troubles")
        retry.add_argument("ids", nargs="*", help="which ones; none takes the newest thousand of --group")
        retry.add_argument("--reason", default="")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            chosen = [source_of(options["source"])] if options["source"] else sources()
        except ProblemError as exc:
            raise CommandError(f"--source: {exc.errors[0].detail}") from exc
        getattr(self, f"_{options['verb']}")(chosen, options)

    def _groups(self, chosen: list[TroubleSource], options: dict[str, Any]) -> None:
        found = [group_document(one) for one in troubles_groups(chosen, fingerprint=options["group"])]
        lines = [
            f"{one['source']}  {one['group']}  {one['count']}  {_said(one['title'], one['message'])}" for one in found
        ]
        self._print(found, lines, options)

    def _list(self, chosen: list[TroubleSource], options: dict[str, Any]) -> None:
        rows, _ = troubles_page(
            chosen, fingerprint=options["group"], place=("", ""), limit=max(1, min(10_000, options["limit"]))
        )
        found = [trouble_document(*row) for row in rows]
        lines = [
            f"{one['source']}  {one['id']}  {one['state']}  {one['about']}  {_said(one['code'], one['message'])}"
            for one in found
        ]
        self._print(found, lines, options)

    def _retry(self, chosen: list[TroubleSource], options: dict[str, Any]) -> None:
        if not options["source"]:
            raise CommandError("Say of which --source.")
        if bool(options["ids"]) == bool(options["group"]):
            raise CommandError("Give either ids or a --group.")
        retried = troubles_retry(
            source=chosen[0],
            ids=options["ids"] or None,
            fingerprint=options["group"],
            actor=shell_actor(),
            reason=options["reason"],
        )
        refused = sorted(set(options["ids"]) - set(retried))
        document = {"retried": retried, "not_retried": refused}
        line = f"{len(retried)} will be retried" + (f"; not: {', '.join(refused)}" if refused else "")
        self.stdout.write(json.dumps(document) if options["json"] else line)
        if refused:
            raise SystemExit(1)

    def _print(self, found: list[dict[str, Any]], lines: list[str], options: dict[str, Any]) -> None:
        text = json.dumps(found, cls=DjangoJSONEncoder) if options["json"] else "\n".join(lines or ["No troubles."])
        self.stdout.write(text)
        if found:
            raise SystemExit(1)


def _said(title: str, message: str) -> str:
    return f"{title}: {message[:100]}" if message else title
