"""``manage.py projection_rebuild NAME``: fill a new build, compare it with the one that readers see, and switch."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from operations.errors import ProblemError
from operations.shell import counted, shell_actor
from projections.comparing import Comparison, rebuild_compare
from projections.models import Build, BuildState
from projections.rebuilding import (
    rebuild_cancel,
    rebuild_lag,
    rebuild_retire,
    rebuild_rollback,
    rebuild_start,
    rebuild_switch,
)
from projections.runner import projections_run_once

_CLOSE = 1_000


class Command(BaseCommand):
    """Exits with 1 when the new build differs and readers were not switched."""

    help = "Rebuild a read model while readers go on. It can be interrupted and called again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("projection")
        parser.add_argument("--accept-differences", action="store_true", help="switch although rows differ")
        verbs = parser.add_mutually_exclusive_group()
        verbs.add_argument("--no-switch", action="store_true", help="fill and compare only")
        verbs.add_argument("--rollback", action="store_true", help="let readers see the build that they saw before")
        verbs.add_argument("--retire", action="store_true", help="drop the build that they saw before")
        verbs.add_argument("--cancel", action="store_true", help="drop the build that is being filled")

    def handle(self, *args: Any, **options: Any) -> None:
        name, actor = options["projection"], shell_actor()
        try:
            if options["rollback"]:
                self.stdout.write(f"readers see build {rebuild_rollback(name=name, actor=actor).pk} again")
            elif options["retire"]:
                rebuild_retire(name=name, actor=actor)
                self.stdout.write("the build that readers saw before is gone")
            elif options["cancel"]:
                rebuild_cancel(name=name, actor=actor)
                self.stdout.write("the build that was being filled is gone")
            else:
                self._rebuild(name, actor, options)
        except ProblemError as exc:
            raise CommandError(exc.detail) from exc

    def _rebuild(self, name: str, actor: str, options: dict[str, Any]) -> None:
        if not Build.objects.filter(projection=name, state=BuildState.BUILDING).exists():
            self.stdout.write(f"build {rebuild_start(name=name, actor=actor).pk} is being filled")
        while rebuild_lag(name) > _CLOSE:
            # Relays and workers do the same; whoever has the lease goes on.
            if not projections_run_once(seconds=5, only=name):
                time.sleep(0.2)
            self.stdout.write(f"{rebuild_lag(name)} positions behind")
        compared = rebuild_compare(name=name)
        for line in _lines(compared):
            self.stdout.write(line)
        if options["no_switch"]:
            return
        if not compared.is_same and not options["accept_differences"]:
            self.stdout.write(
                "readers still see the old build: --accept-differences switches them, --cancel drops the new one"
            )
            raise SystemExit(1)
        build = rebuild_switch(name=name, actor=actor)
        self.stdout.write(f"readers see build {build.pk}; --rollback goes back, --retire drops the old one")


def _lines(compared: Comparison) -> list[str]:
    failing = f"{counted(compared.failing, 'event')} that readers have cannot be applied: see projection_failures list"
    return [
        f"{one.table} at {compared.position}: {counted(one.rows, 'row')}, "
        + ("the same" if one.is_same else f"{one.missing} missing, {one.added} added, {one.different} different")
        for one in compared.tables
    ] + ([failing] if compared.failing else [])
