"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import Gauge, Histogram

PROCESSING_SECONDS = Histogram(
    "zenskar_outbox_processing_duration_seconds",
    "Time that one call of a subscriber took, of this process.",
    ["subscriber"],
)
KAFKA_CONNECTED = Gauge("zenskar_kafka_connected", "1 while the last call of this process reached Kafka.")
