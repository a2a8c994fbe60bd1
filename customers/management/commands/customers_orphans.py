"""``manage.py customers_orphans``: what belongs to nobody, on either side."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from customers.management.commands.stripe_reconcile import Command as Reconciling
from customers.reconciling.kinds import ORPHANS

_DESCRIPTION = """
Compare both sides and look at nothing but orphans: records there that are linked to nobody or made twice, ids that the
integration does not know, and what was deleted on one side only.

A dry run unless --apply is given. Then what is safe by rule is cleaned up: what we made ourselves, is old enough, has
nothing hanging on it, and is not too much at once. The rest become proposals (manage.py drift list).

exit status: as of stripe_reconcile.
"""


class Command(Reconciling):
    help = "Find what belongs to nobody on either side; --apply cleans up what is safe."
    description = _DESCRIPTION

    def add_own_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--apply", action="store_true", help="clean up what is safe by rule")

    def filter_of(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"integration": options["integration"] or "stripe", "dry_run": not options["apply"], "only": ORPHANS}
