"""Verification: whether the log, the lanes, the deliveries and the detours fit together, and what would repair them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.db import connection

from dbresilience.transactions import run_in_transaction
from operations.audit import audit_record
from outbox.lanes import LANES, lane_of

log = structlog.get_logger(__name__)

WINDOW: Final = 200_000
AGGREGATES_CHECKED: Final = 10_000
SAMPLE: Final = 10

# Each is one statement, so one snapshot: an event is unsequenced, or in the log, and never in between.
UNPLACED_SQL: Final = """
SELECT e.id FROM outbox_event e
 WHERE e.id > %(after_id)s AND e.id >= COALESCE((SELECT first_event_id FROM outbox_retained), 0)
   AND NOT EXISTS (SELECT 1 FROM outbox_unsequenced u WHERE u.id = e.id)
   AND NOT EXISTS (SELECT 1 FROM outbox_log l WHERE l.event_id = e.id) ORDER BY e.id
"""
WINDOW_SQL: Final = """
SELECT l.lane, l.position, l.event_id FROM generate_series(0, 63) AS k (lane)
 CROSS JOIN LATERAL (SELECT lane, position, event_id FROM outbox_log
                      WHERE lane = k.lane AND position > %(after)s) l
"""
MISSING_SQL: Final = f"""
SELECT l.position FROM ({WINDOW_SQL}) l
 WHERE l.position >= COALESCE((SELECT first_position FROM outbox_retained), 1)
   AND NOT EXISTS (SELECT 1 FROM outbox_event e WHERE e.id = l.event_id) ORDER BY 1
"""  # noqa: S608 - constants only
TWICE_SQL: Final = f"""
SELECT l.event_id FROM ({WINDOW_SQL}) l GROUP BY 1 HAVING count(*) > 1 ORDER BY 1
"""  # noqa: S608 - constants only
WRONG_LANE_SQL: Final = f"""
SELECT l.position FROM ({WINDOW_SQL}) l JOIN outbox_event e ON e.id = l.event_id WHERE e.lane <> l.lane ORDER BY 1
"""  # noqa: S608 - constants only
# Within an aggregate numbers follow places, one after the other.
DISORDER_SQL: Final = f"""
SELECT position FROM (
  SELECT l.position, e.sequence, lag(e.sequence) OVER (PARTITION BY e.aggregate_type, e.aggregate_id
                                                           ORDER BY l.position) AS before
    FROM ({WINDOW_SQL}) l JOIN outbox_event e ON e.id = l.event_id) o
 WHERE before IS NOT NULL AND sequence <> before + 1 ORDER BY 1
"""  # noqa: S608 - constants only
LANES_SQL: Final = """
SELECT s.name || '/' || k.lane FROM outbox_subscription s CROSS JOIN generate_series(0, 63) AS k (lane)
 WHERE s.active
   AND NOT EXISTS (SELECT 1 FROM outbox_lane n WHERE n.subscription_id = s.name AND n.lane = k.lane) ORDER BY 1
"""
AHEAD_SQL: Final = """
SELECT n.subscription_id || '/' || n.lane FROM outbox_lane n
 WHERE n.cursor > (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM outbox_log_position_seq) ORDER BY 1
"""
BEHIND_SQL: Final = """
SELECT n.subscription_id || '/' || n.lane FROM outbox_lane n
  JOIN outbox_subscription s ON s.name = n.subscription_id AND s.active
 WHERE n.cursor < COALESCE((SELECT first_position FROM outbox_retained), 1) - 1 ORDER BY 1
"""
# A detour that nobody will ever make due again: no dead delivery stands at it.
STUCK_SQL: Final = """
SELECT t.id FROM outbox_detour t
 WHERE t.due IS NULL AND NOT EXISTS (
   SELECT 1 FROM outbox_delivery d WHERE d.subscription_id = t.subscription_id AND d.state = 'dead'
      AND d.aggregate_type = t.aggregate_type AND d.aggregate_id = t.aggregate_id AND d.sequence = t.next_sequence)
 ORDER BY t.id
"""
# A delivery that is to be retried, and no detour that leads to it.
LOST_SQL: Final = """
SELECT d.id FROM outbox_delivery d
 WHERE d.state = 'retrying' AND NOT EXISTS (
   SELECT 1 FROM outbox_detour t WHERE t.subscription_id = d.subscription_id AND t.aggregate_type = d.aggregate_type
      AND t.aggregate_id = d.aggregate_id AND t.next_sequence <= d.sequence) ORDER BY d.id
"""
REPAIR_UNPLACED_SQL: Final = f"""
INSERT INTO outbox_unsequenced (id, lane) SELECT e.id, e.lane FROM outbox_event e WHERE e.id IN ({UNPLACED_SQL})
ON CONFLICT DO NOTHING
"""  # noqa: S608 - constants only
REPAIR_LANES_SQL: Final = """
INSERT INTO outbox_lane (subscription_id, lane, cursor, lease_until)
SELECT s.name, k.lane, COALESCE((SELECT first_position FROM outbox_retained), 1) - 1, 'epoch'
  FROM outbox_subscription s CROSS JOIN generate_series(0, 63) AS k (lane) WHERE s.active
ON CONFLICT (subscription_id, lane) DO NOTHING
"""
REPAIR_STUCK_SQL: Final = f"""
UPDATE outbox_detour SET due = clock_timestamp() WHERE id IN ({STUCK_SQL})
"""  # noqa: S608 - constants only
REPAIR_LOST_SQL: Final = f"""
INSERT INTO outbox_detour AS t (subscription_id, lane, aggregate_type, aggregate_id, next_sequence, due)
SELECT subscription_id, lane, aggregate_type, aggregate_id, min(sequence), clock_timestamp()
  FROM outbox_delivery WHERE id IN ({LOST_SQL}) GROUP BY 1, 2, 3, 4
ON CONFLICT (aggregate_type, aggregate_id, subscription_id) DO UPDATE
   SET next_sequence = least(t.next_sequence, excluded.next_sequence), due = excluded.due
"""  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        meaning: what it would mean.
        count: how many.
        sample: some of them.
        repairable: whether ``apply`` repairs it.
        repaired: how many were repaired.
    """

    check: str
    meaning: str
    count: int
    sample: tuple[str, ...]
    repairable: bool
    repaired: int = 0

    @property
    def is_open(self) -> bool:
        """Whether something is still wrong."""
        return self.count > self.repaired


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    meaning: str
    sql: str
    repair: str = ""


# Lanes are looked at before the repairs of others need them.
CHECKS: Final = (
    _Check("lanes", "a subscriber lacks a lane and never gets its events", LANES_SQL, REPAIR_LANES_SQL),
    _Check("cursors_ahead", "a cursor is ahead of the log: events will be left out", AHEAD_SQL),
    _Check("cursors_behind", "a cursor is before what is retained: events were left out", BEHIND_SQL),
    _Check("unplaced", "an event has no place in the log and waits for none", UNPLACED_SQL, REPAIR_UNPLACED_SQL),
    _Check("missing", "a place of the log names an event that is not there", MISSING_SQL),
    _Check("twice", "an event has two places in the log", TWICE_SQL),
    _Check("wrong_lane", "an event is in the log under another lane than its own", WRONG_LANE_SQL),
    _Check("order", "events of an aggregate are out of order, or one is missing between them", DISORDER_SQL),
    _Check("stuck_detours", "an aggregate waits for nothing", STUCK_SQL, REPAIR_STUCK_SQL),
    _Check("lost_deliveries", "a delivery is to be retried and nothing leads to it", LOST_SQL, REPAIR_LOST_SQL),
)


def outbox_verify(*, apply: bool, actor: str, whole: bool = False) -> list[Finding]:
    """Look whether everything fits together, and repair what can be repaired without losing or reordering anything.

    Args:
        apply: False only looks.
        actor: who asks for it.
        whole: look at the whole log and not at its last 200,000 places and events; minutes for millions.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value FROM outbox_log_position_seq")
        after = 0 if whole else max(0, cursor.fetchone()[0] - WINDOW)
        cursor.execute("SELECT last_value FROM outbox_event_id_seq")
        values = {"after": after, "after_id": 0 if whole else max(0, cursor.fetchone()[0] - WINDOW)}
    found = [_check(check, values, apply=apply) for check in CHECKS]
    found.append(_hashes(values))
    repaired = {one.check: one.repaired for one in found if one.repaired}
    if repaired:
        audit_record(actor=actor, action="outbox.repaired", detail=repaired)
    log.info("outbox_verified", **{one.check: one.count for one in found if one.count}, repaired=sum(repaired.values()))
    return found


def _check(check: _Check, values: dict[str, Any], *, apply: bool) -> Finding:
    def work() -> Finding:
        with connection.cursor() as cursor:
            cursor.execute(check.sql, values)
            rows = [str(row[0]) for row in cursor.fetchall()]
            repaired = 0
            if rows and apply and check.repair:
                # Under the locks that every settle and every decision takes (see ``outbox.deciding``).
                cursor.execute("SELECT 1 FROM outbox_lane ORDER BY subscription_id, lane FOR UPDATE")
                cursor.execute(check.repair, values)
                repaired = len(rows) if cursor.rowcount else 0
        return Finding(check.name, check.meaning, len(rows), tuple(rows[:SAMPLE]), bool(check.repair), repaired)

    return run_in_transaction(work)


def _hashes(values: dict[str, Any]) -> Finding:
    """Whether the aggregates of the last events are in the lanes where they belong."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT aggregate_type, aggregate_id, lane FROM outbox_event WHERE id > %s ORDER BY id DESC LIMIT %s",
            [values["after_id"], AGGREGATES_CHECKED],
        )
        wrong = [f"{kind}:{name}" for kind, name, lane in cursor.fetchall() if lane_of(kind, name) != lane]
    meaning = f"an aggregate is in another of the {LANES} lanes than its hash says"
    return Finding("hash", meaning, len(wrong), tuple(wrong[:SAMPLE]), False)
