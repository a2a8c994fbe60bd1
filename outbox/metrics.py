"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import Histogram

PROCESSING_SECONDS = Histogram(
    "zenskar_outbox_processing_duration_seconds",
    "Time that one call of a subscriber took, of this process.",
    ["subscriber"],
)
