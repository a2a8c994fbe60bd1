"""What locks cost, for Prometheus: how often they were taken, found taken, waited for in vain, or ran out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.db import connection
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

LOCKS_TAKEN: Final = Counter("zenskar_locks_taken_total", "Locks that were taken.", ["kind"])
LOCKS_CONTENDED: Final = Counter("zenskar_locks_contended_total", "Attempts that found the lock taken.", ["kind"])
LOCKS_EXPIRED: Final = Counter(
    "zenskar_locks_expired_total", "Locks taken from a holder that let them run out.", ["kind"]
)
LOCK_TIMEOUTS: Final = Counter("zenskar_lock_timeouts_total", "Waits for a lock that ended without it.", ["kind"])
LOCK_WAIT: Final = Histogram(
    "zenskar_lock_wait_seconds",
    "Time until a lock was had.",
    ["kind"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
)

HELD_SQL: Final = "SELECT kind, count(*) FROM operations_lock GROUP BY kind"


class LockCollector(Collector):
    """Locks that are held now; there are as many rows as protected changes under way."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: describing by counting would ask the database while the process starts."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        metric = GaugeMetricFamily("zenskar_locks_held", "Locks that are held.", labels=["kind"])
        with connection.cursor() as cursor:
            cursor.execute(HELD_SQL)
            for kind, count in cursor.fetchall():
                metric.add_metric([kind], count)
        yield metric
