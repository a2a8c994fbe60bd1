"""``manage.py outbox_retry``: try dead deliveries again, or give them up."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from operations.shell import shell_actor
from outbox.deciding import AT_ONCE, deliveries_retry_all, deliveries_skip
from outbox.management.reporting import ReportingCommand, add_filter, filter_of
from outbox.selecting import deliveries_choose, deliveries_plan


class Command(ReportingCommand):
    """Exits with 1 when nothing of what was named could be acted upon."""

    help = "Try dead deliveries again now. Counts only, unless --apply is given."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_filter(parser)
        parser.add_argument("--skip", action="store_true", help="give them up instead; their aggregates go on")
        parser.add_argument("--reason", default="", help="why; required with --skip")
        parser.add_argument("--limit", type=int, metavar="COUNT", help="at most so many")
        parser.add_argument("--apply", action="store_true", help="do it")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["skip"] and options["apply"] and not options["reason"].strip():
            raise CommandError("Say why with --reason.")
        if options["limit"] is not None and options["limit"] < 1:
            raise CommandError("--limit: at least 1")
        with self.told():
            chosen = filter_of(options)
            plan = deliveries_plan(chosen)
            done = 0
            if options["apply"] and options["skip"]:
                most, after = options["limit"] or plan.eligible, 0
                while done < most and (ids := deliveries_choose(chosen, most=min(AT_ONCE, most - done), after=after)):
                    after = ids[-1]
                    done += len(deliveries_skip(ids=ids, actor=shell_actor(), reason=options["reason"]))
            elif options["apply"]:
                done = deliveries_retry_all(
                    chosen=chosen, actor=shell_actor(), reason=options["reason"], most=options["limit"]
                )
        verb = "skipped" if options["skip"] else "retried"
        document = {
            "eligible": plan.eligible,
            "not_eligible": plan.not_eligible,
            verb: done,
            "applied": options["apply"],
        }
        why = "".join(f"; {count} not: {why}" for why, count in plan.not_eligible.items())
        line = f"{done} {verb}{why}" if options["apply"] else f"{plan.eligible} would be {verb}{why}. Add --apply."
        self.report(options, document, line)
        self.finish(wrong=not plan.eligible)
