"""The link of one process to Kafka: its producer, and the topics that it has met."""

from __future__ import annotations

import os
import time
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient

from outbox.conf import KafkaSettings
from outbox.kafka_topics import topics_make

log = structlog.get_logger(__name__)

# What a person has to put right, and no waiting does.
CONFIGURATION: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
    }
)


class Link:
    """The producer of one process, made on first use: librdkafka's threads do not survive a fork."""

    # What a child inherited is never touched: to destroy it would wait for threads that the child does not have.
    _inherited: list[Link] = []

    def __init__(self, config: KafkaSettings) -> None:
        self.pid = os.getpid()
        self.config = config
        self.down_since: float | None = None
        self.denied = ""
        self._topics: set[str] = set()
        base: dict[str, Any] = {"bootstrap.servers": config.bootstrap_servers, **config.extra}
        self.producer = Producer(
            {
                **base,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "message.timeout.ms": int(config.message_timeout * 1000),
                "message.max.bytes": config.message_max_bytes,
                "queue.buffering.max.messages": 1_000_000,
                "reconnect.backoff.max.ms": 1_000,
                "socket.keepalive.enable": True,
                "error_cb": self._on_error,
                "log_level": 0,
            }
        )
        self._admin = AdminClient({**base, "log_level": 0})
        Link._inherited = [link for link in (*Link._inherited, self) if link.pid != self.pid] + [self]

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE):
            if self.down_since is not None:
                return
            self.down_since = time.monotonic()
        elif error.code() in CONFIGURATION or error.code() == KafkaError._SSL:
            self.denied = error.str()
        log.info("kafka_error", code=error.name())

    def ensure_topics(self, topics: set[str]) -> None:
        """Make topics that this process has not met yet and that are missing.

        Raises:
            OutageError: no broker answers.
        """
        if new := topics - self._topics:
            topics_make(self._admin, new, self.config)
            self._topics |= new

    def purge(self) -> None:
        """Throw away what is queued or in flight, and hear of it."""
        self.producer.purge()
        self.producer.flush(1.0)
