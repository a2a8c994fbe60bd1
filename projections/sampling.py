"""Health kept as rows, once a minute."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import structlog
from django.db import connection, transaction
from django.utils import timezone

from projections.builds import LOCK_KEY
from projections.health import BuildHealth, builds_health
from projections.measuring import WIDTH
from projections.models import Mark, Minute

log = structlog.get_logger(__name__)

KEPT: Final = dt.timedelta(days=7)

SAMPLE_SQL: Final = """
INSERT INTO projections_minute AS m (build_id, minute, status, active_failures, lag_seconds, lag_events, buckets)
VALUES (%(build)s, date_trunc('minute', clock_timestamp()), %(status)s, %(failures)s, %(seconds)s, %(events)s,
        array_fill(0, ARRAY[%(width)s]))
ON CONFLICT (build_id, minute) DO UPDATE
   SET status = excluded.status, active_failures = excluded.active_failures, lag_seconds = excluded.lag_seconds,
       lag_events = excluded.lag_events
"""
BEFORE_SQL: Final = """
SELECT status FROM projections_minute
 WHERE build_id = %(build)s AND status <> '' AND minute < date_trunc('minute', clock_timestamp())
 ORDER BY minute DESC LIMIT 1
"""


def health_sample_once() -> int:
    """Write a sample of each build; a change of status is told in the log, by one process.

    Returns:
        Samples written; 0 when another process is at it.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK_KEY + 1])
        if not cursor.fetchone()[0]:
            return 0
        found = builds_health()
        for one in found:
            _sample(cursor, one)
        Minute.objects.filter(minute__lt=timezone.now() - KEPT).delete()
        Mark.objects.filter(passed_at__lt=timezone.now() - KEPT).delete()
    return len(found)


def _sample(cursor: Any, one: BuildHealth) -> None:
    cursor.execute(BEFORE_SQL, {"build": one.build})
    before = cursor.fetchone()
    values = {
        "build": one.build,
        "status": one.status.value,
        "failures": one.active_failures,
        "seconds": one.lag_seconds,
        "events": one.lag_events,
        "width": WIDTH,
    }
    cursor.execute(SAMPLE_SQL, values)
    if before is not None and before[0] != one.status.value:
        log.warning("projection_status_changed", projection=one.projection, was=before[0], status=one.status.value)
