"""Figures of the consumers for Prometheus, read from the database: the same in every process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import structlog
from django.db import Error, connection
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

COUNTED_AT_MOST: Final = 10_000

# A row per partition; those of which nobody has said anything for a day belong to workers that are no more.
PARTITIONS_SQL: Final = """
SELECT consumer_group, topic, partition::text, lag, EXTRACT(epoch FROM clock_timestamp() - reported_at)::float8
  FROM outbox_inbox_partition WHERE reported_at > clock_timestamp() - interval '1 day' ORDER BY 1, 2, partition
"""
# By outbox_parked_state_idx, the newest 10,000 of each state.
PARKED_SQL: Final = """
SELECT p.consumer_group, p.topic, s.state, count(*)
  FROM (VALUES ('retrying'), ('waiting'), ('dead')) AS s (state)
 CROSS JOIN LATERAL (SELECT consumer_group, topic FROM outbox_inbox_parked
                      WHERE state = s.state ORDER BY id DESC LIMIT %(most)s) p
 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


class ConsumerCollector(Collector):
    """Lag and parked messages, by group and topic."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: describing by measuring would ask the database while the process starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        try:
            with connection.cursor() as cursor:
                cursor.execute(PARTITIONS_SQL)
                partitions = cursor.fetchall()
                cursor.execute(PARKED_SQL, {"most": COUNTED_AT_MOST})
                parked = cursor.fetchall()
        except Error as exc:
            log.warning("consumer_figures_missing", error=type(exc).__name__)
            return
        lag: Any = GaugeMetricFamily(
            "zenskar_kafka_consumer_lag_messages",
            "Messages of a partition not handled yet, when its worker last said so.",
            labels=["group", "topic", "partition"],
        )
        age: Any = GaugeMetricFamily(
            "zenskar_kafka_consumer_report_age_seconds",
            "Since the worker of a partition last said how far it is.",
            labels=["group", "topic", "partition"],
        )
        for group, topic, partition, count, seconds in partitions:
            lag.add_metric([group, topic, partition], count)
            age.add_metric([group, topic, partition], seconds)
        waiting: Any = GaugeMetricFamily(
            "zenskar_kafka_consumer_parked_messages",
            "Messages that are retried, wait behind such a one, or are dead; 10,000 of a state at most.",
            labels=["group", "topic", "state"],
        )
        for group, topic, state, count in parked:
            waiting.add_metric([group, topic, state], count)
        yield from (lag, age, waiting)
