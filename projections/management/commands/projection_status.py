"""``manage.py projection_status``: how the read models are."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from projections.documents import status_document
from projections.management.printing import as_json


class Command(BaseCommand):
    """Exits with 1 unless all that readers see is healthy."""

    help = "Show health, checkpoint, lag and failures of every read model."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        document = status_document()
        if options["json"]:
            self.stdout.write(as_json(document))
        else:
            self.stdout.write("\n".join(_lines(document)))
        if document["status"] != "healthy":
            raise SystemExit(1)


def _lines(document: dict[str, Any]) -> list[str]:
    found = []
    for projection in document["projections"]:
        if not projection["builds"]:
            found.append(f"{projection['name']}: nothing has been built yet")
        for build in projection["builds"]:
            found.append(
                f"{build['projection']} {build['version']} #{build['build']} ({build['state']}): {build['status']},"
                f" at {build['last_event_sequence']} of {build['head']}, {build['lag_events']} events"
                f" ({build['lag_seconds']:g} s) behind, {build['active_failures']} failing,"
                f" {build['waiting_behind_failures']} waiting behind them, {build['throughput_per_second']:g} events/s"
            )
            found += [f"  {alert['level']}: {alert['message']}" for alert in build["alerts"]]
    return found or ["PROJECTIONS lists no projection."]
