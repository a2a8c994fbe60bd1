"""``manage.py outbox_resume NAME``: give a subscriber events again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from operations.shell import shell_actor
from outbox.api.documents import subscriber_document
from outbox.board import board_row
from outbox.management.reporting import ReportingCommand
from outbox.subscriptions import breaker_try, subscription_resume


class Command(ReportingCommand):
    help = "Give a subscriber events again, where it stopped; with --probe also try one that is away, now."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("name")
        parser.add_argument("--probe", action="store_true", help="do not wait for the breaker's next moment")

    def handle(self, *args: Any, **options: Any) -> None:
        with self.told():
            subscription_resume(name=options["name"], actor=shell_actor())
            if options["probe"]:
                breaker_try(name=options["name"], actor=shell_actor())
            row = board_row(options["name"])
        self.report(options, subscriber_document(row), f"{options['name']} is {row.state}")
