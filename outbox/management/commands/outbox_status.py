"""``manage.py outbox_status``: what waits, what failed, and how the subscribers are."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from outbox.api.documents import group_document, statistics_document, subscriber_document
from outbox.board import BoardRow, subscribers_board
from outbox.groups import failure_groups
from outbox.management.reporting import ReportingCommand


class Command(ReportingCommand):
    """Exits with 1 when something waits for a person: a dead delivery, or a subscriber that is paused or away."""

    help = "Show the backlog, failures by kind, and the state of every subscriber."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--lag", type=float, metavar="SECONDS", help="wrong too when the oldest event is older")

    def handle(self, *args: Any, **options: Any) -> None:
        rows, groups, statistics = subscribers_board(), failure_groups(), statistics_document()
        document = {
            **statistics,
            "subscribers": [subscriber_document(row) for row in rows],
            "groups": [group_document(one) for one in groups],
        }
        lines = [_line(row) for row in rows]
        lines += [
            f"{one.count} x {one.subscriber} {one.error_class} {one.code}: {one.message[:100]}"
            f" (kind {one.fingerprint}, newest delivery {one.delivery_id})"
            for one in groups
        ]
        lines.append(
            f"{statistics['pending']} wait, {statistics['retrying']} are retried, {statistics['dead']} are dead,"
            f" {statistics['blocked']} wait behind those"
        )
        self.report(options, document, *lines)
        late = options["lag"] is not None and any(row.figures.lag_seconds > options["lag"] for row in rows)
        self.finish(wrong=bool(statistics["dead"]) or late or any(row.state != "active" for row in rows))


def _line(row: BoardRow) -> str:
    drain = "" if not row.drain_seconds else f", drained in about {row.drain_seconds:.0f} s"
    why = row.paused_reason or row.breaker_message
    note = f" ({why[:100]})" if row.state != "active" else ""
    blocked = f", {row.figures.blocked} behind failed ones" if row.figures.blocked else ""
    return (
        f"{row.figures.name}: {row.state}{note}, {row.figures.pending} wait, the oldest for"
        f" {row.figures.lag_seconds:.0f} s{drain}{blocked}"
    )
