"""How far a worker's partitions are behind, written down for the metrics of every process."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from django.db import connection

REPORT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 2.0

REPORT_SQL: Final = """
INSERT INTO outbox_inbox_partition AS p (consumer_group, topic, partition, lag, reported_by)
SELECT %(group)s, topic, partition, lag, %(worker)s
  FROM unnest(%(topics)s::text[], %(partitions)s::int[], %(lags)s::bigint[]) AS l (topic, partition, lag)
 ORDER BY topic, partition
ON CONFLICT (consumer_group, topic, partition) DO UPDATE
   SET lag = excluded.lag, reported_by = excluded.reported_by, reported_at = clock_timestamp()
"""


class Lag:
    """The lag of one worker's partitions.

    Args:
        group: consumer group.
        worker: its name.
        consumer: its client.
        prefix: of the topics.
    """

    def __init__(self, group: str, worker: str, consumer: Consumer, prefix: str) -> None:
        self._group = group
        self._worker = worker
        self._consumer = consumer
        self._prefix = prefix
        self._next_at = 0.0
        self._started: dict[tuple[str, int], int] = {}

    def report(self, places: Iterable[tuple[str, int]]) -> None:
        """Write the lag of partitions down, every few seconds.

        Args:
            places: topic (without prefix) and partition.
        """
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + REPORT_SECONDS
        lags = {place: lag for place in sorted(places) if (lag := self._lag(place)) is not None}
        if lags:
            values: dict[str, Any] = {
                "group": self._group,
                "worker": self._worker,
                "topics": [topic for topic, _ in lags],
                "partitions": [partition for _, partition in lags],
                "lags": list(lags.values()),
            }
            with connection.cursor() as cursor:
                cursor.execute(REPORT_SQL, values)

    def forget(self, place: tuple[str, int]) -> None:
        """The partition is another worker's now."""
        self._started.pop(place, None)

    def _lag(self, place: tuple[str, int]) -> int | None:
        partition = TopicPartition(f"{self._prefix}{place[0]}", place[1])
        try:
            # As the last fetch told them; nobody is asked.
            edges = self._consumer.get_watermark_offsets(partition, cached=True)
            if edges is None or edges[1] < 0:
                return None
            low, high = edges
            position = self._consumer.position([partition])[0].offset
            if position < 0:
                position = self._start(place, partition)
            return max(0, high - max(position, low))
        except KafkaException:
            return None

    def _start(self, place: tuple[str, int], partition: TopicPartition) -> int:
        """Where the group was when it got the partition; nothing of it was read yet."""
        if place not in self._started:
            self._started[place] = self._consumer.committed([partition], timeout=ANSWER_SECONDS)[0].offset
        return self._started[place]
