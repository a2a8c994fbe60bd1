"""``zenskar_troubles``: what needs a person, for Prometheus, counted when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from django.db import Error
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from operations.troubles.sources import sources

log = structlog.get_logger(__name__)


class TroubleCollector(Collector):
    """One gauge; a source that cannot be counted now is left out."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: describing by counting would ask the database while the process starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        metric = GaugeMetricFamily(
            "zenskar_troubles", "What needs a person; each count stops at 10,000.", labels=["source", "state"]
        )
        for source in sources():
            try:
                counts = source.counts()
            except Error as exc:
                log.warning("troubles_not_counted", source=source.name, error=type(exc).__name__)
                continue
            for state, count in counts.items():
                metric.add_metric([source.name, state], count)
        yield metric
