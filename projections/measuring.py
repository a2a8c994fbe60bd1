"""How long batches took, counted by minute in the transaction that applied them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

from django.db import connection

BOUNDS_MS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)
"""Upper bounds of the buckets, in milliseconds; one more bucket holds what took longer."""

WIDTH: Final = len(BOUNDS_MS) + 1

# A row has a count for each bucket, whoever wrote it first; one of another width is of another version.
MEASURE_SQL: Final = """
INSERT INTO projections_minute AS m (build_id, minute, events, failures, batches, apply_ms, buckets)
VALUES (%(build)s, date_trunc('minute', clock_timestamp()), %(events)s, %(failures)s, 1, %(ms)s, %(buckets)s::int[])
ON CONFLICT (build_id, minute) DO UPDATE
   SET events = m.events + excluded.events, failures = m.failures + excluded.failures, batches = m.batches + 1,
       apply_ms = m.apply_ms + excluded.apply_ms,
       buckets = CASE WHEN cardinality(m.buckets) = %(width)s
                      THEN m.buckets[:%(bucket)s - 1] || (m.buckets[%(bucket)s] + 1) || m.buckets[%(bucket)s + 1:]
                      ELSE excluded.buckets END
"""


def batch_measure(build_id: int, *, events: int, failures: int, seconds: float) -> None:
    """Count a batch, in the current transaction, whose lock of the build keeps others away."""
    milliseconds = seconds * 1000
    bucket = bisect_left(BOUNDS_MS, milliseconds)
    values: dict[str, Any] = {
        "build": build_id,
        "events": events,
        "failures": failures,
        "ms": milliseconds,
        "bucket": bucket + 1,
        "buckets": [1 if place == bucket else 0 for place in range(WIDTH)],
        "width": WIDTH,
    }
    with connection.cursor() as cursor:
        cursor.execute(MEASURE_SQL, values)


def percentile_ms(buckets: Sequence[int], share: float) -> float | None:
    """The upper bound of the bucket in which the share of all batches is reached; None without any."""
    total = sum(buckets)
    if not total:
        return None
    seen = 0
    for place, count in enumerate(buckets):
        seen += count
        if seen >= total * share:
            return float(BOUNDS_MS[place]) if place < len(BOUNDS_MS) else 2.0 * BOUNDS_MS[-1]
    raise AssertionError("the last bucket reaches every share")
