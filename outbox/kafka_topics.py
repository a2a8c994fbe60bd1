"""Topics in Kafka: made with the configured partitions where the broker lets us."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from outbox.conf import KafkaSettings
from outbox.errors import OutageError

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 3.0
DEAD_LETTERS: Final = ".dlq"
"""Ends the name of the topic that takes the dead letters of another one."""


def topics_make(admin: AdminClient, topics: Iterable[str], config: KafkaSettings) -> list[str]:
    """Make those topics that are missing.

    Where we may not, the log says so once, with what to do; the broker may make them by itself, or says so when
    somebody sends.

    Args:
        admin: a client.
        topics: with their prefix.
        config: how many partitions and replicas.

    Returns:
        Those that are still missing.

    Raises:
        OutageError: no broker answers.
    """
    try:
        cluster = admin.list_topics(timeout=ANSWER_SECONDS)
    except KafkaException as exc:
        raise OutageError("No broker answers.", code=exc.args[0].name()) from exc
    missing = sorted(set(topics) - set(cluster.topics))
    # Without a controller among its brokers a cluster takes no such request, and we would wait for nothing.
    if cluster.controller_id not in cluster.brokers:
        return missing
    return [topic for topic in missing if not _make(admin, topic, config)]


def _make(admin: AdminClient, topic: str, config: KafkaSettings) -> bool:
    wanted = NewTopic(topic, config.partitions, config.replication_factor)
    try:
        admin.create_topics([wanted], request_timeout=ANSWER_SECONDS)[topic].result(timeout=ANSWER_SECONDS + 1)
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return True
        _refused(topic, config, exc.args[0].str())
        return False
    except TimeoutError:
        _refused(topic, config, "no answer")
        return False
    log.info("kafka_topic_made", topic=topic, partitions=config.partitions)
    return True


def _refused(topic: str, config: KafkaSettings, reason: str) -> None:
    hint = f"Make it with {config.partitions} partitions, or allow us to create topics."
    log.warning("kafka_topic_not_made", topic=topic, reason=reason[:200], hint=hint)
