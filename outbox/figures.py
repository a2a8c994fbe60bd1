"""How much waits, what failed and how old the oldest is, per subscriber; bounded, whatever the backlog."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.db import connection

COUNTED_PER_LANE: Final = 1_000
COUNTED_UNSEQUENCED: Final = 10_000
COUNTED_FAILED: Final = 100_000

# Counts at most COUNTED_PER_LANE index entries of each lane; where a lane has more, its share of the distance to the
# head stands for it. Positions are shared by all lanes, hence the division.
BACKLOG_SQL: Final = """
WITH head AS (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS position FROM outbox_log_position_seq),
fresh AS (SELECT count(*) AS waiting FROM (SELECT 1 FROM outbox_unsequenced LIMIT %(unsequenced)s) u)
SELECT s.name,
       (SELECT waiting FROM fresh) + COALESCE(sum(
         CASE WHEN w.waiting < %(lane)s THEN w.waiting
              ELSE greatest(w.waiting, ((SELECT position FROM head) - n.cursor) / 64) END), 0)::bigint,
       COALESCE(sum(n.processed), 0)::bigint, COALESCE(sum(n.errors), 0)::bigint, COALESCE(sum(n.retries), 0)::bigint,
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(o.created_at)), 0)::float8,
       s.paused_at IS NOT NULL AND COALESCE(s.paused_until > clock_timestamp(), true),
       s.breaker_failures > 0
  FROM outbox_subscription s
  JOIN outbox_lane n ON n.subscription_id = s.name
 CROSS JOIN LATERAL (SELECT count(*) AS waiting
                       FROM (SELECT 1 FROM outbox_log l WHERE l.lane = n.lane AND l.position > n.cursor
                              LIMIT %(lane)s) x) w
  LEFT JOIN LATERAL (SELECT e.created_at FROM outbox_log l JOIN outbox_event e ON e.id = l.event_id
                      WHERE l.lane = n.lane AND l.position > n.cursor ORDER BY l.position LIMIT 1) o ON w.waiting > 0
 WHERE s.active
 GROUP BY s.name ORDER BY s.name
"""
FAILED_SQL: Final = """
SELECT subscription_id, topic, state, count(*)
  FROM (SELECT subscription_id, topic, state FROM outbox_delivery WHERE state IN ('retrying', 'dead')
         ORDER BY state, id DESC LIMIT %(most)s) d
 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
TALLY_SECONDS: Final = 1.0
# Sorted by topic, so that two workers that add to the same rows never wait in a circle.
TALLY_SQL: Final = """
INSERT INTO outbox_topic_figure AS f (subscription_id, topic, processed, errors, retries)
SELECT %(name)s, topic, processed, errors, retries
  FROM unnest(%(topics)s::text[], %(processed)s::bigint[], %(errors)s::bigint[], %(retries)s::bigint[])
    AS t (topic, processed, errors, retries) ORDER BY topic
ON CONFLICT (subscription_id, topic) DO UPDATE
   SET processed = f.processed + excluded.processed, errors = f.errors + excluded.errors,
       retries = f.retries + excluded.retries
"""


@dataclass(frozen=True, slots=True)
class SubscriberFigures:
    """One subscriber's figures.

    Attributes:
        name: of the subscriber.
        pending: events that it has not been given yet; an estimate beyond a thousand per lane.
        processed: events that went through, since the subscription was made.
        errors: failed attempts.
        retries: attempts after the first.
        lag_seconds: age of the oldest pending event; 0 when nothing waits.
        paused: by a person or by a wrong setting.
        broken: the breaker is open, or waits for a probe.
    """

    name: str
    pending: int
    processed: int
    errors: int
    retries: int
    lag_seconds: float
    paused: bool
    broken: bool


@dataclass(frozen=True, slots=True)
class FailedFigures:
    """Open deliveries of one subscriber, topic and state; at most 100,000 are counted in all."""

    subscriber: str
    topic: str
    state: str
    count: int


def subscribers_figures() -> list[SubscriberFigures]:
    """The figures of all subscribers in use; some ten milliseconds."""
    with connection.cursor() as cursor:
        # Wide enough for the planner to think of compiling it, which takes longer than the query.
        cursor.execute("SET LOCAL jit = off" if connection.in_atomic_block else "SET jit = off")
        cursor.execute(BACKLOG_SQL, {"lane": COUNTED_PER_LANE, "unsequenced": COUNTED_UNSEQUENCED})
        return [SubscriberFigures(*row) for row in cursor.fetchall()]


def failed_figures() -> list[FailedFigures]:
    """Open deliveries."""
    with connection.cursor() as cursor:
        cursor.execute(FAILED_SQL, {"most": COUNTED_FAILED})
        return [FailedFigures(*row) for row in cursor.fetchall()]


class Tally:
    """What one worker did, by topic, until it is added to the subscriber's figures.

    Args:
        name: of the subscriber.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._processed: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._next_write = 0.0

    def add(self, through: Iterable[str], failed: Iterable[str], retried: Iterable[str] = ()) -> None:
        """Count events by their topics: those that went through, those that failed, those that were tried again."""
        self._processed.update(through)
        self._errors.update(failed)
        self._retries.update(retried)

    def write_due(self) -> None:
        """Write what was counted, once a second."""
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write what was counted; in a statement of its own, so that workers never wait for each other's settles."""
        self._next_write = time.monotonic() + TALLY_SECONDS
        topics = sorted(set(self._processed) | set(self._errors) | set(self._retries))
        if not topics:
            return
        values: dict[str, Any] = {
            "name": self._name,
            "topics": topics,
            "processed": [self._processed[topic] for topic in topics],
            "errors": [self._errors[topic] for topic in topics],
            "retries": [self._retries[topic] for topic in topics],
        }
        with connection.cursor() as cursor:
            cursor.execute(TALLY_SQL, values)
        for counter in (self._processed, self._errors, self._retries):
            counter.clear()
