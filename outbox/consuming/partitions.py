"""The partitions that a group gave to one of its members, and their messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from outbox.conf import KafkaSettings
from outbox.consuming.conf import consumer_settings
from outbox.consuming.messages import Record
from outbox.errors import ConfigurationError, OutageError
from outbox.kafka_topics import topics_make

log = structlog.get_logger(__name__)

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
"""A topic, without its prefix, and a partition."""


class Partitions:
    """One member of a consumer group, as the broker knows it.

    Partitions come and go within ``fetch``. An offset is committed when it was stored, and never before: every second,
    when a partition is revoked, and at the end.

    Args:
        group: consumer group.
        topics: without their prefix.
        config: how to reach the broker.
        start_at: ``earliest`` or ``latest``, where a group begins that is new to a partition.
        on_revoked: called with each partition that is another member's now.

    Attributes:
        mine: what the group has given us.
        ended: of that, what is read to its end.
    """

    def __init__(
        self,
        group: str,
        topics: Sequence[str],
        config: KafkaSettings,
        *,
        start_at: str,
        on_revoked: Callable[[Place], None],
    ) -> None:
        self._group = group
        self._on_revoked = on_revoked
        self._denied = ""
        self.prefix = f"{config.topic_prefix}."
        self.mine: set[Place] = set()
        self.ended: set[Place] = set()
        # Where to read on from, of partitions whose seek was refused: what comes of them before that is no order.
        self._owed: dict[Place, int] = {}
        names = [f"{self.prefix}{topic}" for topic in topics]
        _topics_ensure(names, config)
        self.consumer = Consumer(_client(config, group, start_at) | {"error_cb": self._on_error})
        self.consumer.subscribe(names, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def fetch(self, timeout: float, *, most: int) -> dict[Place, list[Record]]:
        """What has arrived, by partition, in order.

        Args:
            timeout: seconds to wait for the first message.
            most: messages.

        Raises:
            ConfigurationError: the broker refuses us.
        """
        found: defaultdict[Place, list[Record]] = defaultdict(list)
        for place in list(self._owed):
            self._seek(place)
        first = self.consumer.poll(timeout)
        messages = [] if first is None else [first]
        if first is not None and most > 1:
            messages += self.consumer.consume(most - 1, timeout=0)
        if self._denied:
            raise ConfigurationError(self._denied, code="kafka_denied")
        for message in messages:
            error = message.error()
            if error is None:
                record = Record.of(message)
                place = (record.topic.removeprefix(self.prefix), record.partition)
                found[place].append(record)
                self.ended.discard(place)
            elif error.code() == KafkaError._PARTITION_EOF:
                self.ended.add(((message.topic() or "").removeprefix(self.prefix), message.partition() or 0))
            elif error.fatal() or error.code() in _DENIED:
                raise ConfigurationError(error.str(), code=error.name())
            else:
                log.info("kafka_error", code=error.name())
        # What was revoked within the same poll is another worker's; what lies behind an owed seek comes once more.
        return {place: records for place, records in found.items() if place in self.mine and place not in self._owed}

    def store(self, place: Place, offset: int) -> None:
        """Have everything before this offset committed soon."""
        try:
            self.consumer.store_offsets(offsets=[TopicPartition(f"{self.prefix}{place[0]}", place[1], offset)])
        except KafkaException as exc:
            # It was taken from us meanwhile; its next holder finds what we did in the inbox.
            log.info("offset_not_stored", topic=place[0], partition=place[1], code=exc.args[0].name())

    def again(self, place: Place, offset: int) -> None:
        """Fetch from there again; nothing later of the partition is given out before."""
        self.ended.discard(place)
        if place in self.mine:
            self._owed[place] = offset
            self._seek(place)

    def close(self) -> None:
        """Commit what is stored and leave the group."""
        self.consumer.close()

    def _seek(self, place: Place) -> None:
        try:
            self.consumer.seek(TopicPartition(f"{self.prefix}{place[0]}", place[1], self._owed[place]))
        except KafkaException as exc:
            # As while the fetcher of a partition is still starting: at the next fetch once more.
            log.info("seek_not_possible", topic=place[0], partition=place[1], code=exc.args[0].name())
        else:
            del self._owed[place]

    def _assigned(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        places = self._places(partitions)
        self.mine |= places
        log.info("partitions_assigned", group=self._group, partitions=sorted(places))

    def _revoked(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        places = self._places(partitions)
        self.mine -= places
        self.ended -= places
        for place in places:
            self._owed.pop(place, None)
            self._on_revoked(place)
        log.info("partitions_revoked", group=self._group, partitions=sorted(places))

    def _places(self, partitions: list[TopicPartition]) -> set[Place]:
        return {(one.topic.removeprefix(self.prefix), one.partition) for one in partitions}

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in _DENIED or error.code() == KafkaError._SSL:
            self._denied = error.str()
        log.info("kafka_error", code=error.name())


def _topics_ensure(names: Sequence[str], config: KafkaSettings) -> None:
    client: dict[str, Any] = {"bootstrap.servers": config.bootstrap_servers, **config.extra}
    try:
        topics_make(AdminClient(client | {"log_level": 0}), names, config)
    except OutageError:
        # The consumer waits for the broker, and for the topics.
        log.warning("kafka_away", servers=config.bootstrap_servers)


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
