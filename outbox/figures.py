"""How much waits, what failed and how old the oldest is, per subscriber; bounded, whatever the backlog."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from django.db import connection

from operations.audit import SYSTEM
from outbox.tally import BOUNDS

COUNTED_PER_LANE: Final = 250
COUNTED_UNSEQUENCED: Final = 10_000
COUNTED_FAILED: Final = 5_000
COUNTED_DETOURS: Final = 2_000

# Counts at most COUNTED_PER_LANE index entries of each lane; where a lane has more, its share of the distance to the
# head stands for it. Positions are shared by all lanes, hence the division.
# What waits behind failed events is not beyond a cursor: it is the distance to the aggregate's last number.
BACKLOG_SQL: Final = """
WITH head AS (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS position FROM outbox_log_position_seq),
fresh AS (SELECT count(*) AS waiting,
                 (SELECT e.created_at FROM outbox_event e WHERE e.id = (SELECT min(id) FROM outbox_unsequenced)
                   LIMIT 1) AS oldest
            FROM (SELECT 1 FROM outbox_unsequenced LIMIT %(unsequenced)s) u)
SELECT s.name,
       (SELECT waiting FROM fresh) + COALESCE(sum(
         CASE WHEN w.waiting < %(lane)s THEN w.waiting
              ELSE greatest(w.waiting, ((SELECT position FROM head) - n.cursor) / 64) END), 0)::bigint,
       COALESCE(sum(n.processed), 0)::bigint, COALESCE(sum(n.errors), 0)::bigint, COALESCE(sum(n.retries), 0)::bigint,
       COALESCE(EXTRACT(epoch FROM clock_timestamp()
                                   - least(min(o.created_at), (SELECT oldest FROM fresh))), 0)::float8,
       s.paused_at IS NOT NULL AND COALESCE(s.paused_until > clock_timestamp(), true),
       s.breaker_failures > 0,
       s.paused_at IS NOT NULL AND COALESCE(s.paused_until > clock_timestamp(), true) AND s.paused_by = %(system)s,
       (SELECT COALESCE(sum(greatest(a.sequence - t.next_sequence, 0)), 0)::bigint
          FROM (SELECT aggregate_type, aggregate_id, next_sequence FROM outbox_detour
                 WHERE subscription_id = s.name LIMIT %(detours)s) t
          JOIN outbox_aggregate a USING (aggregate_type, aggregate_id))
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
# Of each state the newest, by the index on (state, id): the same cost however many are open.
FAILED_SQL: Final = """
SELECT d.subscription_id, d.topic, s.state, count(*)
  FROM (VALUES ('retrying'), ('dead')) AS s (state)
 CROSS JOIN LATERAL (SELECT subscription_id, topic FROM outbox_delivery WHERE state = s.state
                      ORDER BY id DESC LIMIT %(most)s) d
 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
SAMPLED_PER_LANE: Final = 20
SAMPLED_UNSEQUENCED: Final = 1_000
# The oldest events of each lane that wait, by topic; lane -1 is what has no place yet. Looked up by id, so it costs the
# same whatever waits.
PENDING_TOPICS_SQL: Final = """
SELECT s.name, x.lane, x.topic, s.topics IS NULL OR x.topic = ANY (s.topics), count(*)
  FROM outbox_subscription s
 CROSS JOIN LATERAL (
   SELECT n.lane, e.topic
     FROM outbox_lane n
    CROSS JOIN LATERAL (SELECT event_id FROM outbox_log l WHERE l.lane = n.lane AND l.position > n.cursor
                         ORDER BY l.position LIMIT %(sampled)s) l
    CROSS JOIN LATERAL (SELECT topic FROM outbox_event WHERE id = l.event_id LIMIT 1) e
    WHERE n.subscription_id = s.name
    UNION ALL
   SELECT -1, e.topic FROM (SELECT id FROM outbox_unsequenced LIMIT %(unsequenced)s) u
    CROSS JOIN LATERAL (SELECT topic FROM outbox_event WHERE id = u.id LIMIT 1) e
 ) x
 WHERE s.active GROUP BY 1, 2, 3, 4
"""
TOPICS_SQL: Final = """
SELECT f.subscription_id, f.topic, f.processed, f.errors, f.retries, f.skipped, f.replaced
  FROM outbox_topic_figure f JOIN outbox_subscription s ON s.name = f.subscription_id AND s.active
"""
# A row for each bar that has calls: fifteen for each subscriber at most.
DURATIONS_SQL: Final = """
SELECT f.subscription_id, f.upto, f.calls, f.seconds
  FROM outbox_duration_figure f JOIN outbox_subscription s ON s.name = f.subscription_id AND s.active
 ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class SubscriberFigures:
    """One subscriber's figures.

    Attributes:
        name: of the subscriber.
        pending: events that it has not been given yet; an estimate beyond 250 per lane.
        processed: events that went through, since the subscription was made.
        errors: failed attempts.
        retries: attempts after the first.
        lag_seconds: age of the oldest pending event; 0 when nothing waits.
        paused: by a person or by a wrong setting.
        broken: the breaker is open, or waits for a probe.
        denied: paused by a wrong setting: the other side refuses us as we are.
        blocked: events that came after failed ones of their aggregates and wait behind them; of 2,000 such aggregates.
    """

    name: str
    pending: int
    processed: int
    errors: int
    retries: int
    lag_seconds: float
    paused: bool
    broken: bool
    denied: bool
    blocked: int


@dataclass(frozen=True, slots=True)
class FailedFigures:
    """Open deliveries of one subscriber, topic and state; at most 5,000 of each state are counted in all."""

    subscriber: str
    topic: str
    state: str
    count: int


def subscribers_figures() -> list[SubscriberFigures]:
    """The figures of all subscribers in use; some ten milliseconds."""
    with connection.cursor() as cursor:
        # Wide enough for the planner to think of compiling it, which takes longer than the query.
        cursor.execute("SET LOCAL jit = off" if connection.in_atomic_block else "SET jit = off")
        cursor.execute(
            BACKLOG_SQL,
            {
                "lane": COUNTED_PER_LANE,
                "unsequenced": COUNTED_UNSEQUENCED,
                "detours": COUNTED_DETOURS,
                "system": SYSTEM,
            },
        )
        return [SubscriberFigures(*row) for row in cursor.fetchall()]


def failed_figures() -> list[FailedFigures]:
    """Open deliveries."""
    with connection.cursor() as cursor:
        cursor.execute(FAILED_SQL, {"most": COUNTED_FAILED})
        return [FailedFigures(*row) for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class TopicFigures:
    """One subscriber's figures of one topic; those of ``SubscriberFigures`` where they can be told apart.

    Attributes:
        subscriber: its name.
        topic: which.
        pending: events that it has not been given yet; where many wait, their number by the share among the oldest.
        processed: events that went through.
        errors: failed attempts.
        retries: attempts after the first.
        skipped: events that people gave up; they are in no other count.
        replaced: events for which people published an edited one.
    """

    subscriber: str
    topic: str
    pending: int
    processed: int
    errors: int
    retries: int
    skipped: int
    replaced: int


def topics_figures(subscribers: list[SubscriberFigures]) -> list[TopicFigures]:
    """The same by topic; some ten milliseconds.

    Args:
        subscribers: what ``subscribers_figures`` gave.
    """
    with connection.cursor() as cursor:
        cursor.execute(PENDING_TOPICS_SQL, {"sampled": SAMPLED_PER_LANE, "unsequenced": SAMPLED_UNSEQUENCED})
        sampled = cursor.fetchall()
        cursor.execute(TOPICS_SQL)
        counted: dict[tuple[str, str], list[int]] = {
            (name, topic): counts for name, topic, *counts in cursor.fetchall()
        }
    pending: dict[tuple[str, str], float] = defaultdict(float)
    lanes: dict[tuple[str, int], int] = defaultdict(int)
    for name, lane, topic, wanted, count in sampled:
        lanes[name, lane] += count
        if wanted:
            pending[name, topic] += count
    for one in subscribers:
        mine = [key for key in pending if key[0] == one.name]
        total = sum(pending[key] for key in mine)
        if total and any(count >= SAMPLED_PER_LANE for (name, _), count in lanes.items() if name == one.name):
            for key in mine:
                pending[key] *= one.pending / total
    return [
        TopicFigures(*key, round(pending.get(key, 0)), *counted.get(key, (0,) * 5))
        for key in sorted(set(pending) | set(counted))
    ]


@dataclass(frozen=True, slots=True)
class DurationFigures:
    """How long the calls of one subscriber took.

    Attributes:
        buckets: bounds in seconds, and how many calls took no longer; the last bound is infinity.
        seconds: that all of them took together.
    """

    buckets: list[tuple[float, int]]
    seconds: float


def durations_figures() -> dict[str, DurationFigures]:
    """By subscriber, how long its calls took since the subscription was made."""
    with connection.cursor() as cursor:
        cursor.execute(DURATIONS_SQL)
        rows = cursor.fetchall()
    found: dict[str, DurationFigures] = {}
    for name in sorted({row[0] for row in rows}):
        bars = {upto: (calls, seconds) for subscriber, upto, calls, seconds in rows if subscriber == name}
        sums = accumulate(bars.get(upto, (0, 0.0))[0] for upto in BOUNDS)
        found[name] = DurationFigures(
            list(zip(BOUNDS, sums, strict=True)), math.fsum(seconds for _, seconds in bars.values())
        )
    return found
