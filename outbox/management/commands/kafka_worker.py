"""``manage.py kafka_worker``: handles the messages of Kafka topics as one member of a consumer group."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from confluent_kafka import KafkaException
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from outbox.conf import kafka_settings
from outbox.consuming.attempting import Halted
from outbox.consuming.conf import consumer_settings
from outbox.consuming.handlers import groups, handlers_load
from outbox.consuming.worker import ConsumerWorker
from outbox.errors import DeliveryError


class Command(BaseCommand):
    help = "Handle messages of Kafka as a member of a consumer group, until SIGTERM or SIGINT. Any number may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--group", required=True, help="consumer group; its handlers are named after it")
        parser.add_argument(
            "--topics",
            action="extend",
            nargs="+",
            metavar="TOPIC",
            help="without the prefix; may be separated by commas; by default all for which the group has handlers",
        )
        parser.add_argument(
            "--from",
            dest="start_at",
            choices=("earliest", "latest"),
            default="earliest",
            help="where a group begins that is new to a topic",
        )
        parser.add_argument("--once", action="store_true", help="handle what waits, then end")
        parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve this process's figures")

    def handle(self, *args: Any, **options: Any) -> None:
        group: str = options["group"]
        topics = self._topics(group, options["topics"])
        if options["metrics_port"]:
            from prometheus_client import start_http_server

            start_http_server(options["metrics_port"])
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, self._ask_to_stop)
        worker = ConsumerWorker(group, topics, start_at=options["start_at"])
        try:
            if options["once"]:
                self.stdout.write(f"{worker.run_until_idle()} messages handled")
            else:
                worker.run(lambda: self._asked)
        except Halted as exc:
            raise CommandError(f"Nothing can be handled now: {exc.fault.message}") from exc
        except (DeliveryError, Error, KafkaException) as exc:
            raise CommandError(str(exc)) from exc
        finally:
            worker.close()

    _asked = False

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def _topics(self, group: str, given: list[str] | None) -> list[str]:
        try:
            handlers_load()
            config = kafka_settings()
            consumer_settings()
        except (ImportError, ImproperlyConfigured) as exc:
            raise CommandError(f"KAFKA_HANDLERS: {exc}" if isinstance(exc, ImportError) else str(exc)) from exc
        if not config.bootstrap_servers:
            raise CommandError("KAFKA_BOOTSTRAP_SERVERS is not set.")
        handled = groups()
        if group not in handled:
            known = ", ".join(handled) or "none at all"
            raise CommandError(f"No module of KAFKA_HANDLERS has a handler for the group {group!r} (groups: {known}).")
        topics = [topic for text in given or () for topic in text.split(",") if topic] or sorted(handled[group])
        for topic in topics:
            if topic not in handled[group]:
                raise CommandError(f"The group {group!r} has no handler for the topic {topic!r}.")
        return sorted(set(topics))
