"""What the commands of the outbox share: ``--json``, and errors told in one line."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.serializers.json import DjangoJSONEncoder
from rest_framework.exceptions import ValidationError

from operations.errors import ProblemError
from outbox.errors import ErrorClass, OutboxError
from outbox.selecting import DeliveryFilter, moment_of


class ReportingCommand(BaseCommand):
    """A command that prints lines for people, or one JSON document."""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def report(self, options: dict[str, Any], document: Any, *lines: str) -> None:
        """Print what was done."""
        if options["json"]:
            self.stdout.write(json.dumps(document, indent=2, cls=DjangoJSONEncoder, ensure_ascii=False))
            return
        for line in lines:
            self.stdout.write(line)

    def finish(self, *, wrong: bool) -> None:
        """End with 1 when something is wrong."""
        if wrong:
            raise SystemExit(1)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tell what was refused in one line.

        Raises:
            CommandError: with that line.
        """
        try:
            yield
        except ProblemError as exc:
            raise CommandError(exc.detail) from exc
        except ValidationError as exc:
            raise CommandError(json.dumps(exc.detail)) from exc
        except (OutboxError, ImproperlyConfigured) as exc:
            raise CommandError(str(exc)) from exc


def add_filter(parser: CommandParser) -> None:
    """Arguments that say which open deliveries are meant."""
    parser.add_argument("ids", nargs="*", type=positive, metavar="DELIVERY", help="numbers of deliveries")
    parser.add_argument("--event", action="append", type=positive, metavar="ID", help="id of an event; may be repeated")
    for name in ("subscriber", "topic", "type", "aggregate-type", "aggregate-id", "code", "fingerprint"):
        parser.add_argument(f"--{name}", metavar=name.upper().replace("-", "_"))
    parser.add_argument("--error-class", choices=ErrorClass.values)
    parser.add_argument("--since", type=moment, metavar="MOMENT", help="first failed then or later (ISO 8601)")
    parser.add_argument("--until", type=moment, metavar="MOMENT", help="first failed earlier")
    parser.add_argument("--all", action="store_true", help="all dead deliveries")


def filter_of(options: dict[str, Any]) -> DeliveryFilter:
    """What the arguments mean.

    Raises:
        CommandError: they mean everything, and --all was not given; or nothing.
        InvalidFilter: a value is none.
    """
    names = ("subscriber", "topic", "type", "aggregate_type", "aggregate_id", "code", "fingerprint", "error_class")
    chosen = DeliveryFilter(
        ids=tuple(options["ids"]) or None,
        events=tuple(options["event"]) if options["event"] else None,
        since=options["since"],
        until=options["until"],
        **{name: options[name] for name in names},
    )
    if chosen.is_everything and not options["all"]:
        raise CommandError("Say which deliveries: numbers, a filter, or --all.")
    return chosen


def positive(text: str) -> int:
    """A number of a row."""
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or not 0 < int(text) < 2**63:
        raise ArgumentTypeError(f"not a number of a row: {text[:50]!r}")
    return int(text)


def moment(text: str) -> datetime:
    """A moment in time, in UTC unless it says otherwise."""
    try:
        found = moment_of(text)
    except ValueError as exc:
        raise ArgumentTypeError(f"not a moment as ISO 8601 has it: {text[:50]!r}") from exc
    return found if found.tzinfo else found.replace(tzinfo=UTC)
