"""Whether events are on their way: a component behind ``/readyz``."""

from __future__ import annotations

from typing import Final

import psycopg

from dbresilience.monitor.connection import monitor_connection
from operations.readiness import register
from outbox.conf import outbox_settings

_SECONDS: Final = 2.0

# Serves relay_check: the age of the oldest event that nobody has sequenced, or that a subscriber waits for which is
# neither paused nor behind an open breaker. One look-up by index for each lane, whatever waits.
LAG_SQL: Final = """
SELECT COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(x.created_at)), 0)::float8 AS seconds
  FROM (SELECT e.created_at
          FROM outbox_subscription s JOIN outbox_lane n ON n.subscription_id = s.name
         CROSS JOIN LATERAL (SELECT event_id FROM outbox_log l WHERE l.lane = n.lane AND l.position > n.cursor
                              ORDER BY l.position LIMIT 1) l
         CROSS JOIN LATERAL (SELECT created_at FROM outbox_event WHERE id = l.event_id LIMIT 1) e
         WHERE s.active AND s.paused_at IS NULL AND s.breaker_failures = 0
         UNION ALL
        SELECT e.created_at
          FROM (SELECT id FROM outbox_unsequenced ORDER BY id LIMIT 1) u
         CROSS JOIN LATERAL (SELECT created_at FROM outbox_event WHERE id = u.id LIMIT 1) e) x
"""


def relay_check() -> str:
    """Whether events wait longer than ``OUTBOX_ALERT_LAG_SECONDS``; asked twice, on connections of its own."""
    try:
        seconds = _lag_seconds()
    except psycopg.OperationalError:
        seconds = _lag_seconds()
    return f"events wait for {seconds:.0f} s" if seconds > outbox_settings().alert_lag else ""


def relay_register() -> None:
    """Tell readiness about the relay."""
    register("relay", relay_check)


def _lag_seconds() -> float:
    with monitor_connection(deadline=_SECONDS) as connection:
        row = connection.execute(LAG_SQL).fetchone()
    return float(row["seconds"]) if row else 0.0
