"""django-outbox-pattern: its own publisher.

It has no place to put another broker in but its connection class, so that is what it gets: one that takes each message,
or hands it to librdkafka and flushes at the end. That favours it: STOMP would wait for each message.
"""

import os
import sys

from project import django_project, events, measured, settle, take


class Connection:
    """Into nothing, or into Kafka."""

    connected = False
    producer = None

    def __init__(self, **_):
        if os.environ["PEER_SINK"] == "kafka":
            from confluent_kafka import Producer

            self.producer = Producer(
                {
                    "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
                    "enable.idempotence": True,
                    "acks": "all",
                    "linger.ms": 5,
                    "compression.type": "lz4",
                    "queue.buffering.max.messages": 1_000_000,
                }
            )

    def set_listener(self, *_):
        pass

    def connect(self, *_, **__):
        self.connected = True

    def is_connected(self):
        return self.connected

    def disconnect(self, *_, **__):
        self.connected = False
        if self.producer is not None:
            self.producer.flush()

    def send(self, body, destination, headers=None, **_):
        take(body if isinstance(body, dict) else __import__("json").loads(body))
        if self.producer is not None:
            said = [(name, str(value)) for name, value in (headers or {}).items()]
            self.producer.produce("peer." + destination, str(body), headers=said)
            self.producer.poll(0)


sys.modules["__main__"].Connection = Connection
django_project(
    "django_outbox_pattern",
    DJANGO_OUTBOX_PATTERN={"DEFAULT_CONNECTION_CLASS": "__main__.Connection", "DEFAULT_PRODUCER_WAITING_TIME": 0},
)

from django_outbox_pattern.factories import factory_producer  # noqa: E402
from django_outbox_pattern.models import Published  # noqa: E402

rows = [Published(destination="customers", body=payload) for _, _, payload in events()]
for start in range(0, len(rows), 5_000):
    Published.objects.bulk_create(rows[start : start + 5_000])
settle()
producer = factory_producer()


def drain():
    producer.publish_message_from_database()
    if (link := producer.connection.producer) is not None:
        link.flush()


measured(drain)
