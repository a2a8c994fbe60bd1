"""Finding out what is wrong now, and deciding who is to be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import structlog
from django.db import Error, connection

from dbresilience.transactions import run_in_transaction
from operations.alerts.conf import alert_settings
from operations.alerts.sources import Condition, sources

log = structlog.get_logger(__name__)

# Checks of one source take turns, so that none ends what another has just found. The lock ends with the transaction.
TURN_SQL: Final = "SELECT pg_advisory_xact_lock(hashtextextended('operations.alerts.' || %(source)s, 0))"
# New ones are raised, known ones seen. One that is told of for the first time, that has become critical, or whose quiet
# period is over gets a notice for each channel; so does one that is over, if anybody was told of it.
CHECK_SQL: Final = """
WITH given AS (
  SELECT * FROM unnest(%(keys)s::text[], %(levels)s::text[], %(titles)s::text[], %(messages)s::text[])
      AS g (key, level, title, message)
), before AS (
  SELECT a.id, a.level, a.noticed_at FROM operations_alert a JOIN given USING (key) WHERE a.ended_at IS NULL
), seen AS (
  INSERT INTO operations_alert AS a (key, source, level, title, message, noticed_at)
  SELECT key, %(source)s, level, title, message, clock_timestamp() FROM given
  ON CONFLICT (key) WHERE ended_at IS NULL DO UPDATE
     SET level = excluded.level, title = excluded.title, message = excluded.message, seen_at = clock_timestamp(),
         noticed_at = CASE WHEN (a.level <> 'critical' AND excluded.level = 'critical')
                             OR a.noticed_at < clock_timestamp() - make_interval(secs => %(quiet)s)
                           THEN clock_timestamp() ELSE a.noticed_at END
  RETURNING a.id, a.noticed_at
), told AS (
  SELECT s.id, CASE WHEN b.id IS NULL THEN 'raised' ELSE 'reminded' END AS kind
    FROM seen s LEFT JOIN before b ON b.id = s.id
   WHERE b.id IS NULL OR s.noticed_at IS DISTINCT FROM b.noticed_at
), over AS (
  UPDATE operations_alert SET ended_at = clock_timestamp()
   WHERE ended_at IS NULL AND source = %(source)s AND key <> ALL (%(keys)s::text[])
  RETURNING id, 'ended' AS kind
), noticed AS (
  INSERT INTO operations_alertnotice (alert_id, kind, channel, state, attempts, error)
  SELECT n.id, n.kind, c.channel, 'pending', 0, ''
    FROM (SELECT * FROM told UNION ALL SELECT * FROM over) n CROSS JOIN unnest(%(channels)s::text[]) AS c (channel)
  RETURNING 1
)
SELECT count(*) FROM noticed
"""


def alerts_check_once() -> int:
    """Ask every source what is wrong now, and queue the notices; how many.

    Raises:
        django.db.Error: the database is in trouble.
    """
    config = alert_settings()
    noticed = 0
    for name, conditions in sources().items():
        try:
            found = list(conditions())
        except Error:
            raise
        except Exception:
            # One source that fails must not silence the others; it will be asked again, and its alerts stay.
            log.exception("alert_source_failed", source=name)
            continue
        noticed += _settle(name, found, config.channels, config.quiet_seconds)
    return noticed


def _settle(source: str, found: Sequence[Condition], channels: Sequence[str], quiet: float) -> int:
    by_key = {f"{source}:{one.key}"[:200]: one for one in found}
    values: dict[str, Any] = {
        "source": source,
        "keys": list(by_key),
        "levels": [one.level.value for one in by_key.values()],
        "titles": [one.title[:200] for one in by_key.values()],
        "messages": [one.message[:1000] for one in by_key.values()],
        "channels": list(channels),
        "quiet": quiet,
    }

    def work() -> int:
        with connection.cursor() as cursor:
            cursor.execute(TURN_SQL, {"source": source})
            cursor.execute(CHECK_SQL, values)
            return int(cursor.fetchone()[0])

    return run_in_transaction(work)
