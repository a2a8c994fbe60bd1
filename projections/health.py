"""Health of the read models, measured now: bands by active failures, lag, staleness, throughput and apply times.

A read model on which something waits and that does not move is never healthy, whatever its failures say.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from django.db import connection
from django.db.models import TextChoices
from django.utils import timezone

from projections.conf import ProjectionSettings, projection_settings
from projections.measuring import WIDTH, percentile_ms
from projections.models import Minute
from projections.registry import projection_named, projection_names

WINDOW: Final = dt.timedelta(minutes=5)
COUNTED_PER_LANE: Final = 200
COUNTED_AT_MOST: Final = 10_000


class Status(TextChoices):
    """Bands by active failures: none, 1 to 9, 10 to 49, 50 or more."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    CRITICAL = "critical"
    OFFLINE = "offline"


_BANDS: Final = ((50, Status.OFFLINE), (10, Status.CRITICAL), (1, Status.DEGRADED))

# Of each build that is fed: the oldest event beyond its checkpoint and how many there are, counted in each lane as far
# as COUNTED_PER_LANE. Where a lane has more, the distance to the head stands for all: an upper bound.
FIGURES_SQL: Final = """
WITH head AS (SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS position FROM outbox_log_position_seq),
fresh AS (
  SELECT count(*) AS waiting, min(u.id) AS first FROM (SELECT id FROM outbox_unsequenced ORDER BY id LIMIT %(most)s) u
)
SELECT b.id, b.projection, b.version, b.state, b.cursor, b.last_event_id, b.last_event_type, b.events_processed,
       b.checkpoint_at, b.seen_at, b.created_at, (SELECT position FROM head),
       (SELECT waiting FROM fresh) + CASE WHEN w.fullest < %(lane)s THEN w.waiting
                                          ELSE greatest(w.waiting, (SELECT position FROM head) - b.cursor) END,
       COALESCE(o.created_at, (SELECT e.created_at FROM fresh f JOIN outbox_event e ON e.id = f.first)),
       (SELECT e.created_at FROM fresh f JOIN outbox_event e ON e.id = f.first),
       (SELECT count(*) FROM (SELECT FROM projections_failure f WHERE f.build_id = b.id
                                 AND f.state IN ('retrying', 'manual') LIMIT %(most)s) x),
       (SELECT count(*) FROM (SELECT FROM projections_failure f WHERE f.build_id = b.id
                                 AND f.state = 'manual' LIMIT %(most)s) x),
       clock_timestamp()
  FROM projections_build b
 CROSS JOIN LATERAL (
   SELECT COALESCE(sum(n.waiting), 0)::bigint AS waiting, COALESCE(max(n.waiting), 0) AS fullest
     FROM generate_series(0, 63) AS k (lane)
    CROSS JOIN LATERAL (SELECT count(*) AS waiting FROM (
            SELECT 1 FROM outbox_log l WHERE l.lane = k.lane AND l.position > b.cursor LIMIT %(lane)s) x) n) w
  LEFT JOIN LATERAL (
   SELECT e.created_at
     FROM (SELECT p.event_id FROM generate_series(0, 63) AS k (lane)
            CROSS JOIN LATERAL (SELECT l.position, l.event_id FROM outbox_log l
                                 WHERE l.lane = k.lane AND l.position > b.cursor ORDER BY l.position LIMIT 1) p
            ORDER BY p.position LIMIT 1) first
     JOIN outbox_event e ON e.id = first.event_id) o ON w.waiting > 0
 WHERE b.state <> 'retired'
 ORDER BY b.projection, b.id
"""
# The events that wait behind failures: arithmetic, since sequences have no gaps.
BEHIND_SQL: Final = """
SELECT d.build_id, sum(greatest(a.sequence - d.next_sequence, 0))::bigint
  FROM (SELECT * FROM projections_detour LIMIT %(most)s) d
  JOIN outbox_aggregate a ON a.aggregate_type = d.aggregate_type AND a.aggregate_id = d.aggregate_id
 GROUP BY d.build_id
"""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that a person should look at.

    Attributes:
        code: stable word for programs.
        level: warning or critical.
        message: what is wrong, with the figure.
    """

    code: str
    level: str
    message: str


@dataclass(slots=True)
class BuildHealth:
    """One build's figures.

    Attributes:
        projection: name of the projection.
        version: of its rows.
        build: number of the build.
        state: what the build is for.
        status: the band.
        last_event_sequence: the checkpoint: every event up to this position is applied or recorded as a failure.
        last_event_id: of the last event.
        last_event_type: its type.
        events_processed: how many took effect.
        checkpoint_at: when it moved last.
        worker_seen_at: when a runner last looked after it.
        head: the newest position of the log.
        lag_events: events that it has not looked at yet; an upper bound when there are many.
        lag_seconds: age of the oldest of them; 0 when nothing waits.
        unsequenced_seconds: age of the oldest event that has no place in the log yet.
        active_failures: failing events, at most 10,000 are counted.
        manual_failures: those of them that wait for a person.
        waiting_behind_failures: events that wait behind a failing one.
        stalled: something waits and nothing moves.
        throughput_per_second: events of the last five minutes.
        failure_rate: share of attempts that failed in the last five minutes; None without any.
        average_apply_ms: of a batch; None without any.
        p95_apply_ms: upper bound of the bucket; None without any.
        alerts: what a person should look at.
    """

    projection: str
    version: int
    build: int
    state: str
    status: Status
    last_event_sequence: int
    last_event_id: int | None
    last_event_type: str
    events_processed: int
    checkpoint_at: dt.datetime | None
    worker_seen_at: dt.datetime | None
    head: int
    lag_events: int
    lag_seconds: float
    unsequenced_seconds: float
    active_failures: int
    manual_failures: int
    waiting_behind_failures: int
    stalled: bool
    throughput_per_second: float = 0.0
    failure_rate: float | None = None
    average_apply_ms: float | None = None
    p95_apply_ms: float | None = None
    alerts: list[Alert] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON for the API."""
        return asdict(self) | {"status": self.status.value}


def builds_health() -> list[BuildHealth]:
    """Health of all builds that are not retired; some milliseconds each, whatever the backlog."""
    config = projection_settings()
    with connection.cursor() as cursor:
        # Wide enough for the planner to think of compiling it, which takes longer than the query.
        cursor.execute("SET LOCAL jit = off" if connection.in_atomic_block else "SET jit = off")
        cursor.execute(FIGURES_SQL, {"lane": COUNTED_PER_LANE, "most": COUNTED_AT_MOST})
        rows = cursor.fetchall()
        cursor.execute(BEHIND_SQL, {"most": COUNTED_AT_MOST})
        behind = dict(cursor.fetchall())
    found = [_health(row, behind.get(row[0], 0), config) for row in rows]
    _add_speed(found)
    for one in found:
        one.alerts = _alerts(one, config)
    return found


def projections_health() -> dict[str, BuildHealth | None]:
    """Health of what readers see, by projection; None where nothing has been built yet."""
    live = {one.projection: one for one in builds_health() if one.state == "live"}
    return {name: live.get(name) for name in projection_names()}


def projection_health(name: str) -> BuildHealth | None:
    """Health of what readers of one projection see; None where nothing has been built yet.

    Raises:
        UnknownProjection: none of this name is listed.
    """
    projection_named(name)
    return projections_health()[name]


def overall(found: Sequence[BuildHealth | None]) -> Status:
    """The worst status; a projection of which nothing is built is offline."""
    order = list(Status)
    worst = max((order.index(one.status if one else Status.OFFLINE) for one in found), default=0)
    return order[worst]


def band(failures: int) -> Status:
    """The band of so many active failures."""
    return next((status for least, status in _BANDS if failures >= least), Status.HEALTHY)


def _health(row: tuple[Any, ...], behind: int, config: ProjectionSettings) -> BuildHealth:
    (build, projection, version, state, cursor, event_id, event_type, events, checkpoint_at, seen_at, created_at, head,
     waiting, oldest, unsequenced, failures, manual, now) = row  # fmt: skip
    # While something waits, it has stood still since it moved last, or since that something came.
    since = max(moment for moment in (checkpoint_at, oldest, created_at) if moment is not None)
    stalled = bool(waiting) and (now - since).total_seconds() > config.stale_seconds
    status = band(failures)
    if stalled and status in (Status.HEALTHY, Status.DEGRADED):
        status = Status.CRITICAL
    return BuildHealth(
        projection=projection,
        version=version,
        build=build,
        state=state,
        status=status,
        last_event_sequence=cursor,
        last_event_id=event_id,
        last_event_type=event_type,
        events_processed=events,
        checkpoint_at=checkpoint_at,
        worker_seen_at=seen_at,
        head=head,
        lag_events=waiting,
        lag_seconds=round(max(0.0, (now - oldest).total_seconds()), 3) if waiting and oldest else 0.0,
        unsequenced_seconds=round(max(0.0, (now - unsequenced).total_seconds()), 3) if unsequenced else 0.0,
        active_failures=failures,
        manual_failures=manual,
        waiting_behind_failures=behind,
        stalled=stalled,
    )


def _add_speed(found: list[BuildHealth]) -> None:
    since = timezone.now() - WINDOW
    minutes: dict[int, list[Minute]] = {}
    for row in Minute.objects.filter(build__in=[one.build for one in found], minute__gt=since):
        minutes.setdefault(row.build_id, []).append(row)
    for one in found:
        rows = minutes.get(one.build, [])
        batches = sum(row.batches for row in rows)
        events, failures = sum(row.events for row in rows), sum(row.failures for row in rows)
        one.throughput_per_second = round(events / WINDOW.total_seconds(), 3)
        if events + failures:
            one.failure_rate = round(failures / (events + failures), 4)
        if batches:
            one.average_apply_ms = round(sum(row.apply_ms for row in rows) / batches, 3)
            one.p95_apply_ms = percentile_ms(
                [sum(counts) for counts in zip(*(r.buckets for r in rows if len(r.buckets) == WIDTH), strict=True)],
                0.95,
            )


def _alerts(one: BuildHealth, config: ProjectionSettings) -> list[Alert]:
    found = []
    if one.stalled:
        text = f"{one.lag_events} events wait, the oldest for {one.lag_seconds:.0f} s, and nothing moves."
        found.append(Alert("stalled", "critical", text))
    if one.status in (Status.CRITICAL, Status.OFFLINE):
        found.append(Alert(one.status.value, "critical", f"{one.projection} is {one.status.value}."))
    if one.active_failures > config.alert_failures:
        text = f"{one.active_failures} events fail, more than {config.alert_failures}."
        found.append(Alert("many_failures", "warning", text))
    if one.lag_seconds > config.alert_lag_seconds:
        text = f"{one.lag_seconds:.0f} s behind, more than {config.alert_lag_seconds:.0f}."
        found.append(Alert("lag", "warning", text))
    return found
