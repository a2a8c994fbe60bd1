"""The rows that failures leave behind."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db import connection

from projections.applying import MESSAGE_LENGTH, TRACEBACK_LENGTH, Failed
from projections.projection import Projection

LADDER: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each retry; after the last one a person decides."""

FINGERPRINT_LENGTH: Final = 32

_VARYING: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\w*\d\w*\b|'[^']*'|\"[^\"]*\"", re.IGNORECASE)

# One statement for a first failure and for a failed retry: the failure, its attempt, and the detour of its aggregate.
# The moment of the next attempt is the database's clock plus a wait; without a wait a person decides.
RECORD_SQL: Final = """
WITH given AS MATERIALIZED (
  SELECT *, clock_timestamp() + wait * interval '1 second' AS due,
         CASE WHEN wait IS NULL THEN 'manual' ELSE 'retrying' END AS state
    FROM unnest(%(event_id)s::bigint[], %(position)s::bigint[], %(topic)s::text[], %(type)s::text[],
                %(aggregate_type)s::text[], %(aggregate_id)s::text[], %(sequence)s::bigint[], %(attempts)s::int[],
                %(wait)s::float8[], %(error_class)s::text[], %(code)s::text[], %(message)s::text[],
                %(traceback)s::text[], %(fingerprint)s::text[])
      AS g (event_id, position, topic, event_type, aggregate_type, aggregate_id, sequence, attempts, wait, error_class,
            code, message, traceback, fingerprint)
), written AS (
  INSERT INTO projections_failure AS f
        (build_id, projection, event_id, position, topic, event_type, aggregate_type, aggregate_id, sequence, state,
         attempts, next_retry_at, error_class, code, message, traceback, fingerprint)
  SELECT %(build)s, %(projection)s, event_id, position, topic, event_type, aggregate_type, aggregate_id, sequence,
         state, attempts, due, error_class, code, message, traceback, fingerprint FROM given
  ON CONFLICT (build_id, aggregate_type, aggregate_id) WHERE state IN ('retrying', 'manual') DO UPDATE
     SET state = excluded.state, attempts = excluded.attempts, next_retry_at = excluded.next_retry_at,
         error_class = excluded.error_class, code = excluded.code, message = excluded.message,
         traceback = excluded.traceback, fingerprint = excluded.fingerprint, last_failed_at = clock_timestamp()
  RETURNING f.id, f.attempts, f.error_class, f.code, f.message
), noted AS (
  INSERT INTO projections_attempt (failure_id, number, error_class, code, message)
  SELECT id, attempts, error_class, code, message FROM written
)
INSERT INTO projections_detour (build_id, aggregate_type, aggregate_id, next_sequence, due, rebuild)
SELECT %(build)s, aggregate_type, aggregate_id, sequence, due, false FROM given
ON CONFLICT (build_id, aggregate_type, aggregate_id) DO UPDATE
   SET next_sequence = excluded.next_sequence, due = excluded.due, rebuild = false
"""

# Decided once, an event stays passed over: a build that meets it anew goes on without it as the others do. Only for
# what failed in it, so a version that can apply the event does. Fixes by hand are not carried: the rows of the new
# build were not fixed. By projections_failure_event.
CARRY_SQL: Final = """
WITH decided AS (
  SELECT DISTINCT ON (o.event_id) o.event_id, o.build_id, o.resolved_by, o.resolution
    FROM projections_failure o
   WHERE o.event_id = ANY (%(event_id)s::bigint[]) AND o.projection = %(projection)s AND o.build_id <> %(build)s
     AND o.state = 'resolved' AND o.strategy = 'skip'
   ORDER BY o.event_id, o.id DESC
), carried AS (
  UPDATE projections_failure f
     SET state = 'resolved', strategy = 'skip', next_retry_at = NULL, resolved_at = clock_timestamp(),
         resolved_by = d.resolved_by,
         resolution = 'Decided for build ' || d.build_id || COALESCE(': ' || NULLIF(d.resolution, ''), '.')
    FROM decided d
   WHERE f.build_id = %(build)s AND f.event_id = d.event_id AND f.state IN ('retrying', 'manual')
  RETURNING f.aggregate_type, f.aggregate_id, f.sequence
)
UPDATE projections_detour t SET next_sequence = c.sequence + 1, due = clock_timestamp()
  FROM carried c
 WHERE t.build_id = %(build)s AND t.aggregate_type = c.aggregate_type AND t.aggregate_id = c.aggregate_id
"""


def failures_record(
    projection: Projection, build_id: int, failed: Sequence[Failed], attempts: Mapping[int, int] | None = None
) -> int:
    """Write the failures, their attempts and detours, at most one of each aggregate.

    What a person decided to skip in another build is skipped here too, and its aggregate goes on.

    Args:
        projection: whose they are.
        build_id: of the build; the caller holds its row's lock.
        failed: what failed.
        attempts: by event id, how many attempts this one makes; 1 where it is not named.

    Returns:
        How many of them wait for a person now.
    """
    if not failed:
        return 0
    numbers = [(attempts or {}).get(one.event.id, 1) for one in failed]
    waits = [LADDER[number - 1] if number <= len(LADDER) else None for number in numbers]
    events = [one.event for one in failed]
    values: dict[str, Any] = {
        "build": build_id,
        "projection": projection.name,
        "event_id": [event.id for event in events],
        "position": [event.position for event in events],
        "topic": [event.topic for event in events],
        "type": [event.type for event in events],
        "aggregate_type": [event.aggregate_type for event in events],
        "aggregate_id": [event.aggregate_id for event in events],
        "sequence": [event.sequence for event in events],
        "attempts": numbers,
        "wait": waits,
        "error_class": [one.error_class.value for one in failed],
        "code": [_plain(one.code)[:100] for one in failed],
        "message": [_plain(one.message)[:MESSAGE_LENGTH] for one in failed],
        "traceback": [_plain(one.traceback)[-TRACEBACK_LENGTH:] for one in failed],
        "fingerprint": [_fingerprint(projection, one) for one in failed],
    }
    with connection.cursor() as cursor:
        cursor.execute(RECORD_SQL, values)
    skips_carry(build_id=build_id, projection=projection.name, events=[event.id for event in events])
    return waits.count(None)


def skips_carry(*, build_id: int, projection: str, events: Sequence[int]) -> None:
    """Skip those events that fail in a build and were skipped in another; the caller holds the lock of its row."""
    values: dict[str, Any] = {"build": build_id, "projection": projection, "event_id": list(events)}
    with connection.cursor() as cursor:
        cursor.execute(CARRY_SQL, values)


def _fingerprint(projection: Projection, failed: Failed) -> str:
    """The same for failures that differ only in ids, numbers and quoted values."""
    parts = [projection.name, failed.event.type, failed.error_class, failed.code, _VARYING.sub("?", failed.message)]
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:FINGERPRINT_LENGTH]


def _plain(text: str) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()
