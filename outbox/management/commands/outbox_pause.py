"""``manage.py outbox_pause NAME --reason …``: give a subscriber nothing for a while."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from operations.shell import shell_actor
from outbox.api.documents import subscriber_document
from outbox.board import board_row
from outbox.management.reporting import ReportingCommand, moment
from outbox.subscriptions import subscription_pause


class Command(ReportingCommand):
    help = "Give a subscriber nothing from the next batch on, in every process."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("name")
        parser.add_argument("--reason", required=True)
        parser.add_argument("--until", type=moment, metavar="MOMENT", help="goes on by itself then (ISO 8601)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["until"] is not None and options["until"] <= timezone.now():
            raise CommandError("--until is over already.")
        if not options["reason"].strip():
            raise CommandError("Say why with --reason.")
        with self.told():
            subscription_pause(
                name=options["name"], reason=options["reason"], until=options["until"], actor=shell_actor()
            )
            row = board_row(options["name"])
        until = f" until {row.paused_until:%Y-%m-%d %H:%M:%S} UTC" if row.paused_until else ""
        self.report(options, subscriber_document(row), f"{options['name']} is paused{until}")
