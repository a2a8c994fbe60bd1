"""``manage.py customers_consistency validate|fix``: what must hold between the catalogue and its sync states."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from customers.consistency.fixing import FixConsistency
from customers.consistency.validating import consistency_validate
from customers.management.operating import OperatingCommand
from operations.models import Operation

_DESCRIPTION = """
validate  looks at our own tables and tells what breaks the rules; nothing is changed
fix       tells what would be mended; --apply mends what is safe, and leaves the rest to a person

exit status:
  0    everything holds, or was mended
  1    something does not hold, or was not looked at in time
  130  interrupted; workers go on with it
"""
_PATIENCE = 300.0


class Command(OperatingCommand):
    help = "Find what is inconsistent between customers and their sync states, and mend it."
    description = _DESCRIPTION
    kind = FixConsistency.name

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("verb", choices=["validate", "fix"])
        parser.add_argument("--apply", action="store_true", help="with fix: mend it")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verb"] == "validate":
            if options["apply"]:
                raise CommandError("--apply goes with fix.")
            self._validate(options)
            return
        super().handle(*args, **{**options, "dry_run": not options["apply"]})

    def _validate(self, options: dict[str, Any]) -> None:
        if options["integration"] and options["integration"] not in settings.INTEGRATIONS:
            raise CommandError(f"There is no such integration. Known: {', '.join(settings.INTEGRATIONS)}.")
        found = consistency_validate(integration=options["integration"], seconds=_PATIENCE)
        lines = [_line(one) for one in found["checks"] if one["count"] != 0]
        text = json.dumps(found) if options["json"] else "\n".join(lines or ["Everything holds."])
        self.stdout.write(text)
        if not found["consistent"]:
            raise SystemExit(1)

    def filter_of(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"integration": options["integration"], "dry_run": False}

    def lines(self, operation: Operation) -> list[str]:
        checks = FixConsistency().result(operation)["checks"]
        return [_counts(name, words) for name, words in sorted(checks.items())] or ["Everything holds."]

    def dry_run_lines(self, eligible: int) -> list[str]:
        return [f"{eligible:,} would be mended; --apply mends them, customers_consistency validate names them."]


def _counts(name: str, counts: dict[str, int]) -> str:
    return f"{name}: " + ", ".join(f"{count:,} {word.replace('_', ' ')}" for word, count in counts.items())


def _line(one: dict[str, Any]) -> str:
    count = "not counted in time" if one["count"] is None else f"{one['count']:,}{' or more' if one['more'] else ''}"
    return f"{one['integration_name']}: {count} {one['title']} ({', '.join(one['sample'])}). {one['advice']}"
