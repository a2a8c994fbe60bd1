"""Figures for Prometheus, read from the database when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import structlog
from django.db import Error
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

_FIGURES: Final[list[tuple[Any, str, str, str]]] = [
    (GaugeMetricFamily, "lag_seconds", "Age of the oldest event not looked at yet.", "lag_seconds"),
    (GaugeMetricFamily, "lag_events", "Events not looked at yet.", "lag_events"),
    (GaugeMetricFamily, "active_failures", "Events that cannot be applied.", "active_failures"),
    (GaugeMetricFamily, "manual_failures", "Those of them that wait for a person.", "manual_failures"),
    (GaugeMetricFamily, "waiting_events", "Events that wait behind a failing one.", "waiting_behind_failures"),
    (GaugeMetricFamily, "stalled", "1 while something waits and nothing moves.", "stalled"),
    (CounterMetricFamily, "events", "Events that took effect.", "events_processed"),
]


class ProjectionsCollector(Collector):
    """The same in every process: what is counted stands in the database, beside the checkpoints."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: describing by measuring would ask the database while the process starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        from projections.health import builds_health

        try:
            builds = builds_health()
        except Error as exc:
            log.warning("projection_figures_missing", error=type(exc).__name__)
            return
        for family, name, text, attribute in _FIGURES:
            metric = family(f"zenskar_projection_{name}", text, labels=["projection", "state"])
            for one in builds:
                metric.add_metric([one.projection, one.state], float(getattr(one, attribute)))
            yield metric
