"""Retention of the log: a partition goes when nobody can need it any more, and not before.

A partition of the event table may go when all of this holds:

1. Its ids are all drawn, and a transaction id that was taken after that is behind the oldest running transaction:
   whoever drew one of its ids has ended, and what is there now is all that will ever be there.
2. Each of its events is older than its topic is kept.
3. Nothing of it waits to be sequenced, so every event of it has its place.
4. Every cursor has passed the last of those places, no detour leads through it, no open delivery is of it, and readers
   that are no subscribers (read models) are done with it.

A partition of the log goes after the events that it places. Both are looked at again under the lock that removes them.
DETACH CONCURRENTLY is no help: PostgreSQL refuses it where there is a default partition. The lock is held for as long
as dropping a file takes, and waited for at most a second, for whoever comes after it waits as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from django.db import OperationalError, connection

from dbresilience.transactions import run_in_transaction
from outbox.conf import retention_settings
from outbox.models import Retained
from outbox.partitions import SIZE

log = structlog.get_logger(__name__)

SETTLED_SECONDS: Final = 10.0

_readers: Final[dict[str, Callable[[], int | None]]] = {}

ATTACHED_SQL: Final = """
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = %(table)s::regclass AND c.relname ~ ('^' || %(table)s || '_[0-9]+$')
"""
XID_SQL: Final = "SELECT pg_current_xact_id()::text::bigint"
OLDEST_SQL: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
# Whether some event is kept still: of a topic that is kept for ever, or younger than its topic is kept. Read whole only
# when the answer is no, which is once.
KEPT_SQL: Final = """
SELECT EXISTS (
  SELECT 1 FROM {partition} e
    LEFT JOIN unnest(%(topics)s::text[], %(days)s::float8[]) AS r (topic, days) ON r.topic = e.topic
   WHERE COALESCE(r.days, %(others)s::float8) IS NULL
      OR e.created_at > clock_timestamp() - COALESCE(r.days, %(others)s::float8) * interval '1 day')
"""
# The last place of its events; by the unique index of each partition of the log.
REACH_SQL: Final = """
SELECT COALESCE(max(position), 0) FROM outbox_log WHERE event_id >= %(start)s AND event_id < %(end)s
"""
# In the order in which an operator would look for the reason.
NEEDED_SQL: Final = """
SELECT CASE
  WHEN EXISTS (SELECT 1 FROM outbox_unsequenced WHERE id < %(end)s) THEN 'events of it are not sequenced yet'
  WHEN EXISTS (SELECT 1 FROM outbox_lane n JOIN outbox_subscription s ON s.name = n.subscription_id AND s.active
                WHERE n.cursor < %(reach)s) THEN 'a subscriber has not read all of it'
  WHEN EXISTS (SELECT 1 FROM outbox_delivery WHERE state IN ('retrying', 'dead')
                  AND event_id >= %(start)s AND event_id < %(end)s) THEN 'open deliveries are of it'
  WHEN EXISTS (SELECT 1 FROM outbox_detour t WHERE EXISTS (
         SELECT 1 FROM {partition} e WHERE e.aggregate_type = t.aggregate_type AND e.aggregate_id = t.aggregate_id
                   AND e.sequence >= t.next_sequence)) THEN 'a detour leads through it'
  END
"""
LOG_NEEDED_SQL: Final = """
SELECT CASE
  WHEN EXISTS (SELECT 1 FROM outbox_lane n JOIN outbox_subscription s ON s.name = n.subscription_id AND s.active
                WHERE n.cursor < %(end)s - 1) THEN 'a subscriber has not read all of it'
  WHEN COALESCE((SELECT max(event_id) FROM {partition}), 0)
       >= COALESCE((SELECT first_event_id FROM outbox_retained), 0) THEN 'events that it places are kept'
  WHEN EXISTS (SELECT 1 FROM outbox_event_default d WHERE EXISTS (
         SELECT 1 FROM {partition} l WHERE l.event_id = d.id)) THEN 'events that it places are kept'
  END
"""
LAST_SQL: Final = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}"
RETAINED_SQL: Final = """
INSERT INTO outbox_retained AS r (id, first_event_id, first_position) VALUES (1, %(end)s, %(reach)s + 1)
ON CONFLICT (id) DO UPDATE SET first_event_id = greatest(r.first_event_id, excluded.first_event_id),
       first_position = greatest(r.first_position, excluded.first_position), updated_at = clock_timestamp()
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of one partition.

    Attributes:
        name: of the table.
        obstacle: why it stays; empty when nothing is in the way.
        dropped: whether it was dropped.
    """

    name: str
    obstacle: str
    dropped: bool


@dataclass(frozen=True, slots=True)
class _Partition:
    table: str
    name: str
    start: int
    end: int
    sequence: str


def reader_register(title: str, done_through: Callable[[], int | None]) -> None:
    """Keep the log for readers that are no subscribers; an app does so in ``ready()``.

    Args:
        title: who reads, as said to an operator: ``a read model``.
        done_through: the last place that all of them are done with for good; None if there are none.
    """
    _readers[title] = done_through


def log_is_whole(topics: Iterable[str]) -> bool:
    """Whether the log still has the first event of each of these topics.

    A partition goes when each of its topics has a retention, so those without one have lost nothing.
    """
    kept = retention_settings().topics
    removed = Retained.objects.filter(first_event_id__gt=1).exists()
    return not (removed and any(topic in kept or "*" in kept for topic in topics))


def partitions_prune(*, apply: bool, size: int = SIZE, wait: float = SETTLED_SECONDS) -> list[Judged]:
    """Drop the partitions that nobody can need any more, oldest first; the first that stays ends it for its table.

    Args:
        apply: False only says what would be done.
        size: numbers per partition; for tests.
        wait: seconds to wait for transactions that may have drawn ids of a partition.

    Returns:
        The partitions that were looked at.

    Raises:
        ImproperlyConfigured: OUTBOX_RETENTION is not valid.
    """
    found = []
    if retention_settings().topics:
        for partition in _attached("outbox_event", "outbox_event_id_seq", size):
            found.append(_judge_events(partition, apply=apply, wait=wait))
            if found[-1].obstacle:
                break
    for partition in _attached("outbox_log", "outbox_log_position_seq", size):
        judged = _judge_log(partition, apply=apply)
        found.append(judged)
        if judged.obstacle:
            break
    return found


def _attached(table: str, sequence: str, size: int) -> Iterator[_Partition]:
    """The numbered partitions whose numbers are all drawn, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(ATTACHED_SQL, {"table": table})
        numbers = sorted(int(row[0].removeprefix(f"{table}_")) for row in cursor.fetchall())
        cursor.execute(LAST_SQL.format(sequence=sequence))
        last = cursor.fetchone()[0]
    for number in numbers:
        if (number + 1) * size <= last + 1:
            yield _Partition(table, f"{table}_{number}", number * size, (number + 1) * size, sequence)


def _judge_events(partition: _Partition, *, apply: bool, wait: float) -> Judged:
    if not _settled(wait):
        return Judged(partition.name, "a transaction that began before it was full is still open", False)
    topics = retention_settings().topics
    named = {topic: days for topic, days in topics.items() if topic != "*"}
    values: dict[str, Any] = {
        "start": partition.start,
        "end": partition.end,
        "topics": list(named),
        "days": list(named.values()),
        "others": topics.get("*"),
    }
    with connection.cursor() as cursor:
        cursor.execute(KEPT_SQL.format(partition=partition.name), values)
        if cursor.fetchone()[0]:
            return Judged(partition.name, "events of it are kept longer", False)
        cursor.execute(REACH_SQL, values)
        values["reach"] = cursor.fetchone()[0]
    return _drop(partition, NEEDED_SQL, values, apply=apply)


def _judge_log(partition: _Partition, *, apply: bool) -> Judged:
    return _drop(partition, LOG_NEEDED_SQL, {"end": partition.end}, apply=apply)


def _settled(wait: float) -> bool:
    """Whether every transaction that is running now has ended, within ``wait`` seconds."""
    with connection.cursor() as cursor:
        # A transaction of its own, over before the waiting begins.
        cursor.execute(XID_SQL)
        mine = cursor.fetchone()[0]
    ends = time.monotonic() + wait
    while True:
        with connection.cursor() as cursor:
            cursor.execute(OLDEST_SQL)
            if cursor.fetchone()[0] > mine:
                return True
        if time.monotonic() >= ends:
            return False
        time.sleep(0.05)


def _drop(partition: _Partition, needed: str, values: dict[str, Any], *, apply: bool) -> Judged:
    sql = needed.format(partition=partition.name)
    last = values["reach"] if "reach" in values else partition.end - 1
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        if (obstacle := cursor.fetchone()[0] or _reader_behind(last)) or not apply:
            return Judged(partition.name, obstacle or "", False)

    def work() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '1s'")
            cursor.execute(f"LOCK TABLE {partition.table} IN ACCESS EXCLUSIVE MODE")
            # Again, now that nobody can read it and send an aggregate back into it.
            cursor.execute(sql, values)
            if obstacle := cursor.fetchone()[0] or _reader_behind(last):
                return str(obstacle)
            if "reach" in values:
                cursor.execute(RETAINED_SQL, values)
            cursor.execute(f"DROP TABLE {partition.name}")
        return ""

    try:
        obstacle = run_in_transaction(work)
    except OperationalError:
        obstacle = "the table is in use; it is tried again"
    if not obstacle:
        log.warning("partition_dropped", partition=partition.name)
    return Judged(partition.name, obstacle, not obstacle)


def _reader_behind(last: int) -> str:
    """Who is not done with everything up to a place; empty if nobody is behind."""
    for title, done_through in _readers.items():
        done = done_through()
        if done is not None and done < last:
            return f"{title} has not read all of it"
    return ""
