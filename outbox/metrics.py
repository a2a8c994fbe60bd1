"""Figures for Prometheus: those of the database, read when they are asked for, and those of this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import structlog
from django.db import Error
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

PROCESSING_SECONDS: Final = Histogram(
    "zenskar_outbox_processing_duration_seconds",
    "Time that one call of a subscriber took, in the relays and workers that answer this.",
    ["subscriber"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
KAFKA_CONNECTED: Final = Gauge(
    "zenskar_kafka_connected",
    "1 while the last call to Kafka got through.",
    multiprocess_mode="mostrecent",
)
CONSUMED: Final = Counter(
    "zenskar_kafka_consumed_total",
    "Consumed messages and retries, by what came of them, in the workers that answer this.",
    ["group", "outcome"],
)


class OutboxCollector(Collector):
    """The same in every process: what is counted stands in the database, beside the cursors."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: describing by measuring would ask the database while the process starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        from outbox.figures import failed_figures, subscribers_figures, topics_figures

        try:
            figures, failed = subscribers_figures(), failed_figures()
            topics = topics_figures(figures)
        except Error as exc:
            log.warning("outbox_figures_missing", error=type(exc).__name__)
            return
        of_subscribers: list[tuple[str, str, str]] = [
            ("lag_seconds", "Age of the oldest event not delivered yet.", "lag_seconds"),
            ("paused", "1 while the subscriber is paused.", "paused"),
            ("breaker_open", "1 while its other side is away.", "broken"),
        ]
        for name, text, attribute in of_subscribers:
            metric: Any = GaugeMetricFamily(f"zenskar_outbox_{name}", text, labels=["subscriber"])
            for one in figures:
                metric.add_metric([one.name], float(getattr(one, attribute)))
            yield metric
        of_topics: list[tuple[Any, str, str, str]] = [
            (GaugeMetricFamily, "pending_events", "Events not delivered yet.", "pending"),
            (CounterMetricFamily, "processed", "Events that went through.", "processed"),
            (CounterMetricFamily, "errors", "Attempts that failed.", "errors"),
            (CounterMetricFamily, "retries", "Attempts after the first one.", "retries"),
        ]
        for family, name, text, attribute in of_topics:
            metric = family(f"zenskar_outbox_{name}", text, labels=["subscriber", "topic"])
            for row in topics:
                metric.add_metric([row.subscriber, row.topic], float(getattr(row, attribute)))
            yield metric
        metric = GaugeMetricFamily(
            "zenskar_outbox_failed_events", "Open failures.", labels=["subscriber", "topic", "state"]
        )
        for open_ in failed:
            metric.add_metric([open_.subscriber, open_.topic, open_.state], open_.count)
        yield metric
