"""``manage.py projection_reset NAME``: give readers an empty read model that is filled anew."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from operations.errors import ProblemError
from operations.shell import shell_actor
from projections.resetting import projection_reset, reset_token


class Command(BaseCommand):
    help = (
        "Say what would be done and print a token; with --confirm TOKEN do it. Prefer projection_rebuild, with which"
        " readers keep what they have."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("projection")
        parser.add_argument("--confirm", metavar="TOKEN", help="from the call without it")

    def handle(self, *args: Any, **options: Any) -> None:
        name, actor = options["projection"], shell_actor()
        try:
            if not options["confirm"]:
                token = reset_token(name=name, actor=actor)
                self.stdout.write(
                    f"Nothing was done. Readers would see an empty {name} until it is filled again; projection_rebuild"
                    f" spares them that.\nTo reset it, within five minutes: manage.py projection_reset {name}"
                    f" --confirm {token}"
                )
                return
            build = projection_reset(name=name, token=options["confirm"], actor=actor)
        except ProblemError as exc:
            raise CommandError(exc.detail) from exc
        self.stdout.write(f"{name} is empty; build {build.pk} is being filled")
