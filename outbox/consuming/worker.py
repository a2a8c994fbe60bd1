"""The consumer worker: one member of a consumer group, in one thread."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from django.db import Error, close_old_connections, connection

from outbox import metrics
from outbox.conf import KafkaSettings, kafka_settings, outbox_settings
from outbox.consuming.attempting import Halted
from outbox.consuming.conf import consumer_settings
from outbox.consuming.dead_letters import DeadLetters
from outbox.consuming.hand import Hand
from outbox.consuming.handlers import Outcome
from outbox.consuming.inbox import messages_handle
from outbox.consuming.lag import Lag
from outbox.consuming.messages import Record
from outbox.consuming.retrying import Retries
from outbox.errors import ConfigurationError, DeliveryError, OutageError
from outbox.kafka_topics import topics_make

log = structlog.get_logger(__name__)

LONGEST_POLL_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.25
# What was fetched and is not handled by then is fetched again: the group expects a poll every five minutes.
LONGEST_STEP_SECONDS: Final = 60.0
RECOVERY_SECONDS: Final = (0.1, 5.0)

_DENIED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    }
)

Place = tuple[str, int]


class ConsumerWorker:
    """Reads the topics of a group and handles their messages.

    Everything happens between two polls, and partitions come and go within a poll: so nothing is in hand when they do.
    An offset is stored for committing when the transaction with its effect has committed, and never before. librdkafka
    commits what is stored every second, when a partition is revoked, and at the end.

    Args:
        group: consumer group.
        topics: without their prefix.
        start_at: ``earliest`` or ``latest``, where a group begins that is new to a partition.
    """

    def __init__(self, group: str, topics: Sequence[str], *, start_at: str = "earliest") -> None:
        self._config = kafka_settings()
        self._group = group
        self._prefix = f"{self._config.topic_prefix}."
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._topics = list(topics)
        self._mine: set[Place] = set()
        self._ended: set[Place] = set()
        self._asked: Callable[[], bool] = lambda: False
        self._look_at = 0.0
        self._hand = Hand(group, self.name)
        self._retries = Retries(group, self._topics)
        self._dead_letters = DeadLetters(group, self._config)
        self._denied = ""
        self._make_topics()
        self._consumer = Consumer(_client(self._config, group, start_at) | {"error_cb": self._on_error})
        self._lag = Lag(group, self.name, self._consumer, self._prefix)
        self._consumer.subscribe(
            [f"{self._prefix}{topic}" for topic in self._topics],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._revoked,
        )

    @property
    def is_assigned(self) -> bool:
        """Whether the group has given it something to read."""
        return bool(self._mine)

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Work until told to stop; survives whatever is raised but a refusal by the broker.

        Raises:
            ConfigurationError: the broker refuses us.
        """
        self._asked = should_stop
        failures = 0
        while not should_stop():
            try:
                self.step()
                failures = 0
            except ConfigurationError:
                raise
            except Exception as exc:
                failures += 1
                if isinstance(exc, Halted):
                    log.warning("consumer_halted", group=self._group, code=exc.fault.code, message=exc.fault.message)
                else:
                    # A lost connection is news of the database, and a broker that is away of Kafka: no traceback.
                    known = isinstance(exc, Error | DeliveryError)
                    log.error("consumer_failed", group=self._group, failures=failures, exc_info=not known)
                connection.close()
                first, longest = RECOVERY_SECONDS
                self._pause(min(longest, first * 2 ** min(failures, 10)))
            # As at the end of a request: a pass borrows its connection, and no loan is as old as the process.
            close_old_connections()

    def run_until_idle(self, *, patience: float = 15.0) -> int:
        """Work until nothing waits; how many messages and retries were done with.

        Args:
            patience: seconds to wait for the group to give it partitions.

        Raises:
            Halted, DeliveryError, django.db.Error, KafkaException: whatever stops it.
        """
        done, until = 0, time.monotonic() + patience
        while True:
            count = self.step()
            done += count
            if count or (not self._mine and time.monotonic() < until):
                continue
            if self._mine <= self._ended:
                return done

    def step(self, *, timeout: float | None = None) -> int:
        """One unit of work: what is due, then what has arrived; how many messages and retries were done with.

        Args:
            timeout: seconds to wait for messages; None takes OUTBOX_POLLING_INTERVAL, half a second at most.

        Raises:
            Halted: nothing can be handled now.
            ConfigurationError: the broker refuses us.
            django.db.Error: the database is in trouble; what was fetched comes again.
        """
        done = self._look()
        if timeout is None:
            timeout = min(outbox_settings().polling_interval, LONGEST_POLL_SECONDS)
        records = self._fetch(timeout)
        ends = time.monotonic() + LONGEST_STEP_SECONDS
        while records:
            place, mine = records.popitem()
            try:
                done += self._handle(place, mine, ends)
            except BaseException:
                for other, rest in records.items():
                    self._again(other, rest[0].offset)
                raise
        self._lag.report(self._mine)
        return done

    def close(self) -> None:
        """Commit what is stored and leave the group."""
        self._consumer.close()

    def _look(self) -> int:
        """Serve retries and dead letters, now and then."""
        now = time.monotonic()
        if now < self._look_at:
            return 0
        outcomes = self._retries.serve_once()
        for outcome in outcomes:
            self._count(outcome, 1)
        written = self._dead_letters.write_once()
        if not outcomes and not written:
            self._look_at = now + LOOK_SECONDS
        return len(outcomes)

    def _fetch(self, timeout: float) -> dict[Place, list[Record]]:
        """What has arrived, by partition, in order."""
        found: defaultdict[Place, list[Record]] = defaultdict(list)
        first = self._consumer.poll(timeout)
        messages = [] if first is None else [first]
        if first is not None and (more := outbox_settings().batch_size - 1):
            messages += self._consumer.consume(more, timeout=0)
        if self._denied:
            raise ConfigurationError(self._denied, code="kafka_denied")
        for message in messages:
            error = message.error()
            if error is None:
                record = Record.of(message)
                place = (record.topic.removeprefix(self._prefix), record.partition)
                found[place].append(record)
                self._ended.discard(place)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(((message.topic() or "").removeprefix(self._prefix), message.partition() or 0))
            elif error.fatal() or error.code() in _DENIED:
                raise ConfigurationError(error.str(), code=error.name())
            else:
                log.info("kafka_error", code=error.name())
        # What was revoked within the same poll is another worker's.
        return {place: records for place, records in found.items() if place in self._mine}

    def _handle(self, place: Place, records: list[Record], ends: float) -> int:
        """Handle the messages of one partition; how many are done with."""
        topic, partition = place
        done = 0
        try:
            while records and not self._asked() and time.monotonic() < ends:
                count, died = self._hand.take(topic, partition, [record.offset for record in records])
                handled = messages_handle(
                    group=self._group, topic=topic, worker=self.name, records=records[:count], died=died
                )
                if handled.count:
                    self._store(place, records[handled.count - 1].offset + 1)
                    del records[: handled.count]
                    done += handled.count
                for outcome, number in handled.outcomes.items():
                    self._count(outcome, number)
                    if outcome in (Outcome.RETRY, Outcome.DLQ):
                        self._look_at = 0.0
                if handled.halted is not None:
                    raise Halted(handled.halted)
        finally:
            if records:
                self._again(place, records[0].offset)
        return done

    def _store(self, place: Place, offset: int) -> None:
        try:
            self._consumer.store_offsets(offsets=[TopicPartition(f"{self._prefix}{place[0]}", place[1], offset)])
        except KafkaException as exc:
            # It was taken from us meanwhile; its next holder finds what we did in the inbox.
            log.info("offset_not_stored", topic=place[0], partition=place[1], code=exc.args[0].name())

    def _again(self, place: Place, offset: int) -> None:
        """Fetch from there again."""
        self._ended.discard(place)
        try:
            self._consumer.seek(TopicPartition(f"{self._prefix}{place[0]}", place[1], offset))
        except KafkaException as exc:
            log.info("seek_not_possible", topic=place[0], partition=place[1], code=exc.args[0].name())
            if place in self._mine:
                raise

    def _assigned(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        places = self._places(partitions)
        self._mine |= places
        log.info("partitions_assigned", group=self._group, partitions=sorted(places))

    def _revoked(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        places = self._places(partitions)
        self._mine -= places
        self._ended -= places
        for place in places:
            self._hand.forget(*place)
            self._lag.forget(place)
        log.info("partitions_revoked", group=self._group, partitions=sorted(places))

    def _places(self, partitions: list[TopicPartition]) -> set[Place]:
        return {(one.topic.removeprefix(self._prefix), one.partition) for one in partitions}

    def _make_topics(self) -> None:
        client: dict[str, Any] = {"bootstrap.servers": self._config.bootstrap_servers, **self._config.extra}
        try:
            topics_make(
                AdminClient(client | {"log_level": 0}), [f"{self._prefix}{one}" for one in self._topics], self._config
            )
        except OutageError:
            # The consumer waits for the broker, and for the topics.
            log.warning("kafka_away", servers=self._config.bootstrap_servers)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in _DENIED or error.code() == KafkaError._SSL:
            self._denied = error.str()
        log.info("kafka_error", code=error.name())

    def _count(self, outcome: Outcome, number: int) -> None:
        metrics.CONSUMED.labels(self._group, outcome.value).inc(number)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._asked() and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left))


def _client(config: KafkaSettings, group: str, start_at: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": config.bootstrap_servers,
        **config.extra,
        "group.id": group,
        "partition.assignment.strategy": "cooperative-sticky",
        "auto.offset.reset": start_at,
        "enable.auto.commit": True,
        "auto.commit.interval.ms": 1_000,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        # A connection answers one request at a time: others wait behind an idle fetch.
        "fetch.wait.max.ms": 100,
        "session.timeout.ms": int(consumer_settings().session_timeout * 1000),
        "heartbeat.interval.ms": int(consumer_settings().session_timeout * 1000 / 4),
        "topic.metadata.refresh.interval.ms": 10_000,
        "reconnect.backoff.max.ms": 1_000,
        "socket.keepalive.enable": True,
        "log_level": 0,
    }
