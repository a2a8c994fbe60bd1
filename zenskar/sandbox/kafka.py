"""A Kafka of our own that needs neither Java nor disk: librdkafka's mock cluster.

It speaks the real protocol on 127.0.0.1 to any process: producing (idempotent too), consumer groups, committed offsets.
It creates topics by itself with four partitions, silently drops old records and forgets everything when it stops. So
it shows that things work; that nothing is lost is shown with a real broker (``kafka_broker.py``).
"""

from __future__ import annotations

from confluent_kafka import Producer


class KafkaMock:
    """A mock cluster inside this process, served by a thread of librdkafka's until ``stop``.

    Args:
        brokers: how many brokers it has, each on a free port of its own.
    """

    def __init__(self, *, brokers: int = 1) -> None:
        self.brokers = brokers
        self.bootstrap_servers = ""
        self._producer: Producer | None = None

    def start(self) -> None:
        self._producer = Producer({"test.mock.num.brokers": self.brokers, "log_level": 3})
        metadata = self._producer.list_topics(timeout=10)
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())

    def stop(self) -> None:
        self._producer = None
