"""Dead letters in Kafka: the message as it was, with why and from where, in the topic ``<topic>.dlq``.

A message is dead when the database says so; that Kafka gets its dead letter is done afterwards, at least once.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from django.db import connection

from outbox.conf import KafkaSettings
from outbox.consuming.messages import Record
from outbox.consuming.parking import record_of
from outbox.errors import OutageError
from outbox.kafka_topics import DEAD_LETTERS, topics_make
from outbox.models import ParkedMessage

log = structlog.get_logger(__name__)

AT_ONCE: Final = 100
CLAIM_SECONDS: Final = 60.0

# Takes dead letters that are to be written, by outbox_parked_dead_letter; they come again if nobody says that they
# were. Committed on its own.
CLAIM_SQL: Final = """
UPDATE outbox_inbox_parked SET dead_letter_due = clock_timestamp() + %(seconds)s * interval '1 second'
 WHERE id IN (SELECT id FROM outbox_inbox_parked
               WHERE consumer_group = %(group)s AND dead_letter_due <= (SELECT clock_timestamp())
               ORDER BY dead_letter_due LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING id
"""
WRITTEN_SQL: Final = """
UPDATE outbox_inbox_parked SET dead_letter_due = NULL, dead_lettered_at = clock_timestamp()
 WHERE id = ANY (%(ids)s::bigint[])
"""

Header = tuple[str, str | bytes | None]


class DeadLetters:
    """Writes the dead letters of one group."""

    def __init__(self, group: str, config: KafkaSettings) -> None:
        self._group = group
        self._config = config
        self._topics: set[str] = set()
        client: dict[str, Any] = {"bootstrap.servers": config.bootstrap_servers, **config.extra, "log_level": 0}
        self._admin = AdminClient(client)
        self._producer = Producer(
            {
                **client,
                "enable.idempotence": True,
                "acks": "all",
                "partitioner": "murmur2_random",
                "message.timeout.ms": int(config.message_timeout * 1000),
                # The broker knows best what it takes.
                "message.max.bytes": 1_000_000_000,
            }
        )

    def write_once(self) -> int:
        """Write what is due; how many were written.

        Raises:
            OutageError: no broker took them; they come again.
        """
        with connection.cursor() as cursor:
            cursor.execute(CLAIM_SQL, {"group": self._group, "seconds": CLAIM_SECONDS, "most": AT_ONCE})
            ids = [number for (number,) in cursor.fetchall()]
        if not ids:
            return 0
        written: list[int] = []
        # One at a time: each may hold megabytes.
        for number in ids:
            parked = ParkedMessage.objects.filter(pk=number).first()
            if parked is not None and self._write(parked):
                written.append(number)
        with connection.cursor() as cursor:
            cursor.execute(WRITTEN_SQL, {"ids": written})
        log.info("dead_letters_written", group=self._group, count=len(written))
        if len(written) < len(ids):
            raise OutageError("Some dead letters were not acknowledged; they come again.", code="not_acknowledged")
        return len(written)

    def _write(self, parked: ParkedMessage) -> bool:
        record = record_of(parked, prefix=self._config.topic_prefix)
        topic = f"{record.topic}{DEAD_LETTERS}"
        if topic not in self._topics:
            topics_make(self._admin, [topic], self._config)
            self._topics.add(topic)
        headers = [*record.headers, *_why(parked, record)]
        error = self._produce(topic, record.value, record.key, headers)
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            # The database keeps all of it.
            omitted: list[Header] = [*headers, ("dlq_value_omitted", str(len(record.value or b"")))]
            error = self._produce(topic, None, record.key, omitted)
        if error is not None:
            log.warning("dead_letter_not_written", topic=topic, id=parked.pk, error=error.name())
        return error is None

    def _produce(self, topic: str, value: bytes | None, key: bytes | None, headers: list[Header]) -> KafkaError | None:
        reports: list[KafkaError | None] = []
        try:
            self._producer.produce(
                topic, value, key, headers=headers, on_delivery=lambda error, _: reports.append(error)
            )
        except KafkaException as exc:
            error: KafkaError = exc.args[0]
            return error
        self._producer.flush(self._config.message_timeout + 1)
        return reports[0] if reports else KafkaError(KafkaError._TIMED_OUT)


def _why(parked: ParkedMessage, record: Record) -> list[Header]:
    """Error and origin. They stand after the original headers, whose names they do not share."""
    return [
        ("dlq_group", parked.consumer_group),
        ("dlq_id", parked.event_id),
        ("dlq_topic", record.topic),
        ("dlq_partition", str(record.partition)),
        ("dlq_offset", str(record.offset)),
        ("dlq_timestamp", str(record.timestamp)),
        ("dlq_error_class", parked.error_class),
        ("dlq_error_code", parked.code),
        ("dlq_error_message", parked.message),
        ("dlq_attempts", str(parked.attempts)),
        ("dlq_failed_at", parked.updated_at.isoformat()),
    ]
