"""``manage.py kafka_redrive``: retry consumed dead letters, or give them up."""

from __future__ import annotations

from typing import Any, Final

from django.core.management.base import CommandError, CommandParser
from django.db.models import Count, QuerySet

from operations.shell import shell_actor
from outbox.conf import kafka_settings
from outbox.consuming.from_kafka import dead_letters_redrive
from outbox.consuming.redriving import AT_ONCE, consumed_discard, consumed_retry
from outbox.kafka_topics import DEAD_LETTERS
from outbox.management.reporting import ReportingCommand, positive
from outbox.models import ParkedMessage, ParkedState

SHOWN: Final = 20


WORDS: Final = {
    "handled": "handled, given up or retried before: nothing to do",
    "restored": "not known here: {} taken up from their dead letters",
    "retried": "dead: {} retried",
    "unusable": "without their value, and not known here: lost",
}
"""What the counts of ``dead_letters_redrive`` say."""


class Command(ReportingCommand):
    """Exits with 1 when there was nothing of what was named."""

    help = "Retry consumed dead letters of a group. Counts only, unless --apply is given."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("ids", nargs="*", type=positive, metavar="MESSAGE", help="numbers of dead messages")
        parser.add_argument("--group", required=True, help="consumer group that declared them dead")
        parser.add_argument("--topic", help="only of this one; with or without the prefix")
        parser.add_argument("--code", help="only with this code of error")
        parser.add_argument("--from-kafka", action="store_true", help="what the topic <topic>.dlq holds; needs --topic")
        parser.add_argument("--discard", action="store_true", help="give them up instead")
        parser.add_argument("--reason", default="", help="why; required with --discard")
        parser.add_argument("--apply", action="store_true", help="do it")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["discard"] and options["apply"] and not options["reason"].strip():
            raise CommandError("Say why with --reason.")
        if options["topic"]:
            options["topic"] = (
                options["topic"].removeprefix(f"{kafka_settings().topic_prefix}.").removesuffix(DEAD_LETTERS)
            )
        if options["from_kafka"]:
            self._from_kafka(options)
            return
        rows = self._rows(options)
        count, done, after = rows.count(), 0, 0
        if not count:
            self._say_what_there_is(options)
        act = consumed_discard if options["discard"] else consumed_retry
        while options["apply"]:
            ids = list(rows.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)[:AT_ONCE])
            if not ids:
                break
            done += len(act(ids=ids, actor=shell_actor(), reason=options["reason"]))
            after = ids[-1]
        verb = "given up" if options["discard"] else "retried"
        line = f"{done} {verb}" if options["apply"] else f"{count} would be {verb}. Add --apply."
        if not count:
            line = "Nothing of that is dead."
        self.report(options, {"dead": count, "done": done, "applied": options["apply"]}, line)
        self.finish(wrong=not count)

    def _rows(self, options: dict[str, Any]) -> QuerySet[ParkedMessage]:
        rows = ParkedMessage.objects.filter(consumer_group=options["group"], state=ParkedState.DEAD)
        if options["ids"]:
            rows = rows.filter(pk__in=options["ids"])
        for name in ("topic", "code"):
            if options[name]:
                rows = rows.filter(**{name: options[name]})
        return rows

    def _say_what_there_is(self, options: dict[str, Any]) -> None:
        """Of nothing that was found: where there are dead messages, or the name was mistyped."""
        dead = ParkedMessage.objects.filter(state=ParkedState.DEAD)
        found = dead.values_list("consumer_group", "topic").annotate(Count("id")).order_by("consumer_group", "topic")
        if told := [f"{group} {topic}: {count}" for group, topic, count in found[:SHOWN]]:
            self.stderr.write(f"Dead messages by group and topic: {'; '.join(told)}.")

    def _from_kafka(self, options: dict[str, Any]) -> None:
        if not options["topic"] or options["discard"] or options["ids"] or options["code"]:
            raise CommandError("--from-kafka goes with --topic and --group alone.")
        with self.told():
            if not kafka_settings().bootstrap_servers:
                raise CommandError("KAFKA_BOOTSTRAP_SERVERS is not set.")
            counts = dead_letters_redrive(
                group=options["group"],
                topic=options["topic"],
                actor=shell_actor(),
                reason=options["reason"],
                apply=options["apply"],
            )
        verb = "were" if options["apply"] else "would be"
        lines = [f"{count} {WORDS[name].format(verb)}" for name, count in sorted(counts.items())]
        lines = lines or ["no dead letters of this group"]
        if not options["apply"] and (counts["retried"] or counts["restored"]):
            lines.append("Nothing was done. Add --apply.")
        self.report(options, {**counts, "applied": options["apply"]}, *lines)
        self.finish(wrong=not counts)
