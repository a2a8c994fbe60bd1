"""``manage.py outbox_replay``: replay in bulk as an operation, or publish a range of the log again."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from operations.long_actions.documents import operation_document
from operations.long_actions.planning import Pace, operation_create, operation_plan
from operations.long_actions.steering import operation_steer
from operations.shell import counted, shell_actor
from outbox.management.reporting import ReportingCommand, add_filter, filter_of, positive
from outbox.replays import ReplayDeliveries
from outbox.republishing import log_republish


class Command(ReportingCommand):
    """Exits with 1 when nothing would be replayed."""

    help = (
        "Replay dead deliveries at a pace, as an operation that can be paused and resumed; or, with --from and --to,"
        " give one subscriber a range of the log again. Counts only, unless --apply is given."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        add_filter(parser)
        parser.add_argument(
            "--from", dest="first", type=positive, metavar="POSITION", help="with --to and --subscriber"
        )
        parser.add_argument("--to", dest="last", type=positive, metavar="POSITION")
        parser.add_argument("--reason", default="", help="why; required with --apply")
        parser.add_argument("--canary", type=int, default=0, metavar="COUNT", help="so many first")
        parser.add_argument("--rate", type=float, metavar="PER_SECOND")
        parser.add_argument("--ramp-seconds", type=int, default=0)
        parser.add_argument("--stop-error-rate", type=float, default=0.5, metavar="SHARE")
        parser.add_argument("--apply", action="store_true", help="do it")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["apply"] and not options["reason"].strip():
            raise CommandError("Say why with --reason.")
        with self.told():
            if options["first"] is not None or options["last"] is not None:
                self._republish(options)
            else:
                self._replay(options)

    def _replay(self, options: dict[str, Any]) -> None:
        chosen = filter_of(options).as_json()
        if not options["apply"]:
            frozen, plan = operation_plan(kind=ReplayDeliveries.name, filter=chosen)
            document = {"filter": frozen, "eligible": plan.eligible, "not_eligible": dict(plan.ineligible)}
            self.report(options, document, f"{plan.eligible} would be replayed. Add --apply and --reason.")
            self.finish(wrong=not plan.eligible)
            return
        pace = Pace(
            canary=options["canary"],
            rate=options["rate"],
            ramp_seconds=options["ramp_seconds"],
            stop_error_rate=options["stop_error_rate"],
        )
        actor = shell_actor()
        made = operation_create(
            kind=ReplayDeliveries.name, filter=chosen, reason=options["reason"], actor=actor, pace=pace
        )
        made = operation_steer(verb="start", operation_id=made.pk, actor=actor)
        size = counted(made.eligible, "delivery", "deliveries")
        line = f"operation {made.pk}: {size}; see manage.py operations show {made.pk}"
        self.report(options, operation_document(made), line)
        self.finish(wrong=not made.eligible)

    def _republish(self, options: dict[str, Any]) -> None:
        if options["first"] is None or options["last"] is None or not options["subscriber"]:
            raise CommandError("A range needs --from, --to and --subscriber.")
        found = log_republish(
            subscriber=options["subscriber"],
            first=options["first"],
            last=options["last"],
            actor=shell_actor(),
            reason=options["reason"],
            apply=options["apply"],
        )
        document = {"events": found.events, "aggregates": found.aggregates, "applied": options["apply"]}
        verb = "come again" if options["apply"] else "would come again. Add --apply and --reason"
        size = f"{counted(found.events, 'event')} of {counted(found.aggregates, 'aggregate')}"
        line = f"{size}, and what came after them there, {verb}."
        self.report(options, document, line)
        self.finish(wrong=not found.events)
