"""Figures for Prometheus, read from the database when they are asked for.

Workers and relays add what they did to rows beside the cursors. So the web process alone answers for all processes, and
its answer is the same in each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import structlog
from django.db import Error
from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from outbox.figures import (
    SubscriberFigures,
    durations_figures,
    failed_figures,
    subscribers_figures,
    topics_figures,
)
from outbox.kafka import KafkaSubscriber

log = structlog.get_logger(__name__)

CONSUMED: Final = Counter(
    "zenskar_kafka_consumed_total",
    "Consumed messages and retries, by what came of them, in the workers that answer this.",
    ["group", "outcome"],
)


class OutboxCollector(Collector):
    """The log's figures; none of its queries grows with the log."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: describing by measuring would ask the database while the process starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        try:
            figures, failed, durations = subscribers_figures(), failed_figures(), durations_figures()
            topics = topics_figures(figures)
        except Error as exc:
            log.warning("outbox_figures_missing", error=type(exc).__name__)
            return
        yield from _of_subscribers(figures)
        of_topics: list[tuple[Any, str, str, str]] = [
            (GaugeMetricFamily, "pending_events", "Events not delivered yet.", "pending"),
            (CounterMetricFamily, "processed", "Events that went through.", "processed"),
            (CounterMetricFamily, "errors", "Attempts that failed.", "errors"),
            (CounterMetricFamily, "retries", "Attempts after the first one.", "retries"),
            (CounterMetricFamily, "skipped", "Events that people gave up.", "skipped"),
            (CounterMetricFamily, "replaced", "Events for which people published an edited one.", "replaced"),
        ]
        for family, name, text, attribute in of_topics:
            metric = family(f"zenskar_outbox_{name}", text, labels=["subscriber", "topic"])
            for row in topics:
                metric.add_metric([row.subscriber, row.topic], float(getattr(row, attribute)))
            yield metric
        metric = GaugeMetricFamily(
            "zenskar_outbox_failed_events",
            "Open failures; of each state the newest 5,000 are counted.",
            labels=["subscriber", "topic", "state"],
        )
        for open_ in failed:
            metric.add_metric([open_.subscriber, open_.topic, open_.state], open_.count)
        yield metric
        metric = HistogramMetricFamily(
            "zenskar_outbox_processing_duration_seconds",
            "Time that one call of a subscriber took, in all relays and workers.",
            labels=["subscriber"],
        )
        for name, one in durations.items():
            buckets = [("+Inf" if math.isinf(upto) else str(upto), float(count)) for upto, count in one.buckets]
            metric.add_metric([name], buckets, one.seconds)
        yield metric


def _of_subscribers(figures: list[SubscriberFigures]) -> Iterator[Metric]:
    of_subscribers: list[tuple[str, str, str]] = [
        ("lag_seconds", "Age of the oldest event not delivered yet.", "lag_seconds"),
        ("blocked_events", "Events behind failed ones of their aggregates; of 2,000 such aggregates.", "blocked"),
        ("paused", "1 while the subscriber is paused.", "paused"),
        ("breaker_open", "1 while its other side is away.", "broken"),
    ]
    for name, text, attribute in of_subscribers:
        metric = GaugeMetricFamily(f"zenskar_outbox_{name}", text, labels=["subscriber"])
        for one in figures:
            metric.add_metric([one.name], float(getattr(one, attribute)))
        yield metric
    connected = GaugeMetricFamily(
        "zenskar_kafka_connected", "1 while the last call to Kafka got through; absent where nothing goes to Kafka."
    )
    for one in figures:
        if one.name == KafkaSubscriber.name:
            connected.add_metric([], float(not one.broken and not one.denied))
    yield connected
