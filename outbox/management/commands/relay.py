"""``manage.py relay``: brings events to the subscribers with low latency, until it is told to stop."""

from __future__ import annotations

import signal
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from operations.shell import counted
from outbox.errors import UnknownSubscriber
from outbox.relay import relay_until_idle
from outbox.relaying import Relay
from outbox.subscribers import subscriber_named


class Command(BaseCommand):
    help = "Bring events to the subscribers with low latency, until SIGTERM or SIGINT. Any number may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--subscriber", action="append", metavar="NAME", help="only this one; may be repeated")
        parser.add_argument("--once", action="store_true", help="deliver what waits, then end")
        parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve figures of this process alone")
        parser.add_argument(
            "--metrics-host", default="127.0.0.1", metavar="ADDRESS", help="where; they are served without a token"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        names: list[str] | None = options["subscriber"]
        try:
            for name in names or []:
                subscriber_named(name)
        except UnknownSubscriber as exc:
            raise CommandError(str(exc)) from exc
        if options["once"]:
            self.stdout.write(f"{counted(relay_until_idle(), 'event')} delivered")
            return
        if options["metrics_port"]:
            from prometheus_client import start_http_server

            try:
                start_http_server(options["metrics_port"], options["metrics_host"])
            except (OSError, OverflowError) as exc:
                raise CommandError(f"--metrics-port: {exc}") from exc
        relay = Relay(names)
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, self._ask_to_stop)
        relay.start()
        # A flag and a short sleep: setting an Event from a handler can meet the lock that its own wait holds.
        while not self._asked:
            time.sleep(0.2)
        if not relay.stop():
            raise CommandError("A thread did not stop within 30 s; its lanes are free when their leases end.")

    _asked = False

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
