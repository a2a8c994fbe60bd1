"""The subscriber that brings events to Kafka.

At least once, in the order of each aggregate. Every record carries the event's id and its number within its aggregate;
a consumer that drops what has a number not above the last one it saw has each event once, whatever was sent twice.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from outbox.conf import KafkaSettings, kafka_settings
from outbox.errors import ConfigurationError, ErrorClass, OutageError
from outbox.events import Event
from outbox.kafka_link import CONFIGURATION, Link
from outbox.kafka_records import headers_of, size_of
from outbox.naming import batch_named
from outbox.subscribers import Deadline, Failure, Subscriber

log = structlog.get_logger(__name__)

ENQUEUE_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 1.0
TOPICS_NAMED: Final = 20
# What a record takes besides its key, value and headers, at most.
RECORD_OVERHEAD_BYTES: Final = 512

_PERMANENT: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.POLICY_VIOLATION,
    }
)


class KafkaSubscriber(Subscriber):
    """Sends every event to the topic ``<prefix>.<topic>``, with the aggregate's id as key.

    A call begins with an empty queue and ends with an empty queue: what no broker acknowledged by its end is purged,
    with the producer, and comes again. So nothing that this process still holds can reach Kafka after another one has
    taken the lanes over. ``message.timeout.ms`` says the same to librdkafka, for a process that is suspended meanwhile.
    """

    name = "kafka"

    def __init__(self) -> None:
        self._link: Link | None = None
        self._guard = threading.Lock()
        self._last = threading.local()

    @property
    def call_seconds(self) -> float:  # type: ignore[override]
        """The time-out of a message, and the time to enqueue a batch."""
        timeout = kafka_settings().message_timeout
        return timeout + min(timeout, ENQUEUE_SECONDS)

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        config = kafka_settings()
        if not config.bootstrap_servers:
            raise ConfigurationError("KAFKA_BOOTSTRAP_SERVERS is not set.", code="kafka_unset")
        with self._guard:
            link = self._link_of_this_process(config)
            call = _Call(link, config, events)
            # Of this thread's last call, for the timeline.
            self._last.call = call
            try:
                link.ensure_topics({f"{config.topic_prefix}.{event.topic}" for event in events})
                failures = call.run(deadline)
            except OutageError:
                self._drop()
                raise
            if any(failure.error_class is ErrorClass.OUTAGE for failure in failures):
                self._drop()
        topics = sorted({f"{config.topic_prefix}.{event.topic}" for event in events})
        log.info("events_published", topics=topics[:TOPICS_NAMED], failed=len(failures), **batch_named(events))
        return failures

    def receipts(self, events: Sequence[Event]) -> dict[int, str]:
        call: _Call | None = getattr(self._last, "call", None)
        return {} if call is None else call.receipts({event.id for event in events})

    def close(self) -> None:
        """Let go of the producer; its queue is empty between calls."""
        with self._guard:
            self._drop()

    def _link_of_this_process(self, config: KafkaSettings) -> Link:
        if self._link is None or self._link.pid != os.getpid() or self._link.config != config:
            self._link = Link(config)
        return self._link

    def _drop(self) -> None:
        if self._link is not None:
            self._link.purge()
            self._link = None


class _Call:
    """One call of ``deliver``: a batch on its way."""

    def __init__(self, link: Link, config: KafkaSettings, events: Sequence[Event]) -> None:
        self._link = link
        self._config = config
        self._events = events
        self._acknowledged = bytearray(len(events))
        # Not the messages, which hold their payloads.
        self._places: list[tuple[int | None, int | None] | None] = [None] * len(events)
        self._waiting = 0
        self._failures: dict[int, Failure] = {}

    def run(self, deadline: Deadline) -> list[Failure]:
        """Send all events and wait until all are acknowledged, or the time is over."""
        # Checked before each event: a process that was suspended here must not go on as if no time had passed.
        until = deadline.at - self._config.message_timeout
        self._link.down_since, self._link.denied = None, ""
        skipped = self._enqueue(until)
        # It ends before the first message times out: librdkafka would give up one message and send the next.
        complete = self._flush(Deadline(deadline.at - min(1.0, self._config.message_timeout / 4)))
        if not complete:
            self._link.purge()
        if self._link.denied:
            raise ConfigurationError(self._link.denied, code="kafka_denied")
        for index in range(len(self._events)):
            if not self._acknowledged[index] and index not in self._failures and index not in skipped:
                self._fail(index, ErrorClass.OUTAGE, "not_acknowledged", "No broker acknowledged it in time.")
        return [self._failures[index] for index in sorted(self._failures)]

    def _enqueue(self, until: float) -> set[int]:
        """Queue the events; those left out because one before them in their aggregate is too large."""
        produce, poll = self._link.producer.produce, self._link.producer.poll
        prefix, limit = f"{self._config.topic_prefix}.", self._config.message_max_bytes - RECORD_OVERHEAD_BYTES
        # Headers and key are at most a few times 255 characters, and those of the publisher's own.
        sure = limit // 2 if limit > 100_000 else 0
        behind: set[tuple[str, str]] = set()
        skipped: set[int] = set()
        for index, event in enumerate(self._events):
            if time.monotonic() > until:
                break
            if behind and event.aggregate in behind:
                skipped.add(index)
                continue
            key, value, headers = (
                event.aggregate_id.encode(),
                event.payload_json,
                headers_of(event, self._config.source),
            )
            if len(value) > sure and (size := size_of(key, value, headers)) > limit:
                message = f"The event takes {size} bytes, and Kafka takes {limit} (KAFKA_MESSAGE_MAX_BYTES)."
                self._fail(index, ErrorClass.PERMANENT, "too_large", message)
                behind.add(event.aggregate)
                continue
            report = partial(self._report, index)
            while True:
                try:
                    produce(prefix + event.topic, value, key, on_delivery=report, headers=headers)
                    self._waiting += 1
                    break
                except KafkaException as exc:
                    # Headers of the publisher's own made it too large, or its topic cannot be: refused before it left.
                    self._note(index, exc.args[0])
                    behind.add(event.aggregate)
                    break
                except BufferError:
                    poll(0.05)
                    if time.monotonic() > until:
                        break
        return skipped

    def _flush(self, deadline: Deadline) -> bool:
        while self._waiting:
            self._link.producer.flush(min(0.25, deadline.remaining()))
            if not self._waiting:
                break
            down = self._link.down_since
            gone = down is not None and time.monotonic() - down > SILENCE_SECONDS
            if gone or self._link.denied or not deadline.remaining():
                return False
        return True

    def receipts(self, ids: set[int]) -> dict[int, str]:
        """Where Kafka put the events: topic, partition and offset."""
        return {
            event.id: f"{self._config.topic_prefix}.{event.topic}/{place[0]}@{place[1]}"
            for event, place in zip(self._events, self._places, strict=True)
            if place is not None and event.id in ids
        }

    def _report(self, index: int, error: KafkaError | None, message: Message) -> None:
        self._waiting -= 1
        if error is None:
            self._acknowledged[index] = 1
            self._places[index] = message.partition(), message.offset()
            self._link.down_since = None
        else:
            self._note(index, error)

    def _note(self, index: int, error: KafkaError) -> None:
        error_class = ErrorClass.OUTAGE
        if error.code() in _PERMANENT:
            error_class = ErrorClass.PERMANENT
        elif error.code() in CONFIGURATION:
            error_class = ErrorClass.CONFIGURATION
        self._fail(index, error_class, error.name(), error.str())

    def _fail(self, index: int, error_class: ErrorClass, code: str, message: str) -> None:
        self._failures[index] = Failure(self._events[index], error_class, code, message)
