"""Redrive of a dead-letter topic: what is written there and was not handled since is handled again."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.conf import KafkaSettings, kafka_settings
from outbox.consuming.handlers import Outcome
from outbox.consuming.messages import Record, envelope_read
from outbox.consuming.parking import message_park
from outbox.consuming.redriving import consumed_retry, queues_advance, queues_lock
from outbox.errors import OutageError
from outbox.kafka_topics import DEAD_LETTERS
from outbox.models import InboxMessage, ParkedMessage, ParkedState

ANSWER_SECONDS: Final = 10.0
SHOWN: Final = 20


def dead_letters_redrive(*, group: str, topic: str, actor: str, reason: str, apply: bool = True) -> Counter[str]:
    """Handle the dead letters of a group again, as they stand in Kafka now.

    A letter whose message is known sends that one again. One whose message is not known any more (the database was
    restored, or it was removed) is parked anew from the letter.

    Args:
        group: consumer group that declared them dead.
        topic: without the prefix.
        actor: who.
        reason: why.
        apply: False only counts.

    Returns:
        Counts: ``retried``, ``restored``, ``handled`` (or given up, or under way: left alone), ``unusable`` (without
        its value).

    Raises:
        OutageError: no broker answers, or there is no such topic.
    """
    config = kafka_settings()
    counts: Counter[str] = Counter()
    met: set[str] = set()
    for letter in _letters(config, f"{config.topic_prefix}.{topic}{DEAD_LETTERS}"):
        record, why = _original(letter)
        name = why.get("dlq_id", "")
        if why.get("dlq_group") != group or not name or name in met:
            continue
        met.add(name)
        parked = ParkedMessage.objects.filter(consumer_group=group, event_id=name).order_by("-id").first()
        if parked is not None and parked.state == ParkedState.DEAD:
            if not apply or consumed_retry(ids=[parked.pk], actor=actor, reason=reason):
                counts["retried"] += 1
        elif parked is not None or _is_handled(group, name):
            counts["handled"] += 1
        elif "dlq_value_omitted" in why:
            counts["unusable"] += 1
        else:
            if apply:
                _restore(group, topic, record)
            counts["restored"] += 1
    if apply and counts["restored"]:
        detail = {"count": counts["restored"], "reason": reason[:2_000]}
        audit_record(actor=actor, action="consumed.restored", target=f"group:{group}", detail=detail)
    return counts


def _is_handled(group: str, name: str) -> bool:
    inbox = InboxMessage.objects.filter(consumer_group=group, event_id=name)
    return inbox.exclude(outcome=Outcome.DLQ).exists()


def _restore(group: str, topic: str, record: Record) -> None:
    envelope = envelope_read(record)
    key = ParkedMessage(
        consumer_group=group,
        topic=topic,
        aggregate_type=envelope.aggregate_type,
        aggregate_id=envelope.aggregate_id,
    )

    def work() -> None:
        queues = queues_lock([key])
        # Known as parked, should it come from its own topic too.
        noted = InboxMessage(
            consumer_group=group,
            event_id=envelope.id,
            topic=topic,
            partition=record.partition,
            offset=record.offset,
            outcome=Outcome.WAITING,
        )
        InboxMessage.objects.bulk_create([noted], ignore_conflicts=True)
        if not ParkedMessage.objects.filter(consumer_group=group, event_id=envelope.id).exists():
            message_park(group=group, topic=topic, record=record, envelope=envelope, redriven=True)
            queues_advance(queues)

    run_in_transaction(work)


def _original(letter: Record) -> tuple[Record, dict[str, str]]:
    """The message as it was, and what its letter says besides."""
    why = {name: (value or b"").decode(errors="replace") for name, value in letter.headers if name.startswith("dlq_")}
    own = tuple((name, value) for name, value in letter.headers if not name.startswith("dlq_"))
    numbers = {
        name: int(text) if (text := why.get(f"dlq_{name}", "")).isascii() and text.isdigit() else 0
        for name in ("partition", "offset", "timestamp")
    }
    topic = why.get("dlq_topic") or letter.topic
    return Record(topic=topic, key=letter.key, value=letter.value, headers=own, **numbers), why


def _letters(config: KafkaSettings, topic: str) -> Iterator[Record]:
    """All messages that a topic has now, each partition in order."""
    client: dict[str, Any] = {"bootstrap.servers": config.bootstrap_servers, **config.extra, "log_level": 0}
    # A group of its own name, which is never joined: the client wants one.
    consumer = Consumer({**client, "group.id": f"redrive-{secrets.token_hex(4)}", "enable.auto.commit": False})
    try:
        known = consumer.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
        if known.error is not None:
            there = sorted(
                name for name in consumer.list_topics(timeout=ANSWER_SECONDS).topics if name.endswith(DEAD_LETTERS)
            )
            said = f"Of dead letters it has {', '.join(there[:SHOWN])}." if there else "It has none of dead letters."
            raise OutageError(f"The broker has no topic {topic}. {said}", code=known.error.name())
        for number in sorted(known.partitions):
            partition = TopicPartition(topic, number)
            edges = consumer.get_watermark_offsets(partition, timeout=ANSWER_SECONDS)
            low, high = edges if edges is not None else (0, 0)
            if low >= high:
                continue
            consumer.assign([TopicPartition(topic, number, low)])
            while low < high:
                message = consumer.poll(ANSWER_SECONDS)
                if message is None:
                    raise OutageError(f"Partition {number} of {topic} does not answer.", code="no_answer")
                if (error := message.error()) is not None:
                    raise KafkaException(error)
                low = (message.offset() or 0) + 1
                yield Record.of(message)
    except KafkaException as exc:
        raise OutageError(exc.args[0].str(), code=exc.args[0].name()) from exc
    finally:
        consumer.close()
