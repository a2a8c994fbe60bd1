"""Prometheus: what this app measures, and how all metrics of the process are written out."""

from __future__ import annotations

import os
from typing import Final

import structlog
from django.db import Error
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

log = structlog.get_logger(__name__)

SCRAPED: Final = CollectorRegistry(auto_describe=True)
"""Collectors that read their figures when scraped (row counts, lag); apps register theirs here."""

SCRAPE_ERRORS: Final = Counter("zenskar_scrape_errors_total", "Scrapes without the figures of the database.")
HTTP_REQUESTS: Final = Counter("zenskar_http_requests_total", "Answers sent.", ["method", "route", "status"])
HTTP_DURATION: Final = Histogram(
    "zenskar_http_request_duration_seconds",
    "Time from request to answer.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


def metrics_page() -> tuple[bytes, str]:
    """All metrics in Prometheus' text format, and its content type.

    With ``PROMETHEUS_MULTIPROC_DIR`` set, counters and histograms are those of all web processes together; without it
    those of the process that answers.
    """
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        counted = CollectorRegistry()
        MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    else:
        counted = REGISTRY
    # First, so that a failure just counted is on the page.
    scraped = _scraped()
    return generate_latest(counted) + scraped, CONTENT_TYPE_LATEST


def _scraped() -> bytes:
    """What collectors read now; nothing while the database is away, when the counters matter most."""
    try:
        return generate_latest(SCRAPED)
    except Error as exc:
        SCRAPE_ERRORS.inc()
        log.warning("scrape_failed", error=type(exc).__name__)
        return b""
