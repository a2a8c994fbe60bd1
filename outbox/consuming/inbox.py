"""Messages of a partition and their effects, in one transaction, each once.

What makes it exactly once: the row of the inbox commits with the effect, and its primary key admits it once. What keeps
the order: the rows of the aggregates are locked first, in one order everywhere, and every decision about an aggregate
(handled, parked, its queue, its last number) is made under that lock. So two workers that hold the same partition for a
moment, as they may while a group is rebalanced, take turns and see each other's work.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from django.db import connection, transaction

from dbresilience.transactions import run_in_transaction
from outbox.consuming.attempting import (
    WORKER_DIED,
    Fault,
    Halted,
    constraints_check,
    handler_of,
    message_attempt,
    wait_after,
)
from outbox.consuming.handlers import Outcome
from outbox.consuming.messages import Envelope, Record, envelope_read
from outbox.consuming.parking import message_park
from outbox.failures import is_database_trouble

log = structlog.get_logger(__name__)

# A transaction that took that long takes no further message.
LONGEST_SECONDS: Final = 5.0

# Takes the locks of the aggregates, in sorted order so that two batches queue and do not deadlock, and reads their
# last numbers as the last holder left them.
LOCK_SQL: Final = """
INSERT INTO outbox_inbox_aggregate AS a (consumer_group, topic, aggregate_type, aggregate_id, sequence)
SELECT %(group)s, %(topic)s, type, id, 0
  FROM (SELECT DISTINCT type, id FROM unnest(%(types)s::text[], %(ids)s::text[]) AS k (type, id)) k ORDER BY type, id
ON CONFLICT (consumer_group, topic, aggregate_type, aggregate_id) DO UPDATE SET sequence = a.sequence
RETURNING aggregate_type, aggregate_id, sequence
"""
# By outbox_parked_queued.
QUEUED_SQL: Final = """
SELECT k.type, k.id FROM unnest(%(types)s::text[], %(ids)s::text[]) AS k (type, id)
 WHERE EXISTS (SELECT 1 FROM outbox_inbox_parked p
                WHERE p.aggregate_type = k.type AND p.aggregate_id = k.id AND p.topic = %(topic)s
                  AND p.consumer_group = %(group)s AND (p.state IN ('retrying', 'waiting') OR p.blocks))
"""
# Looked up one at a time: of a table that was never analysed, as when a group begins with all events there ever were,
# the planner would read what the group has done so far for each batch.
SEEN_SQL: Final = """
SELECT given.event_id FROM unnest(%(events)s::text[]) AS given (event_id)
 CROSS JOIN LATERAL (SELECT FROM outbox_inbox i
                      WHERE i.consumer_group = %(group)s AND i.event_id = given.event_id LIMIT 1) AS found
"""
# In the order of the key, so that two batches which share an id queue and do not deadlock.
DONE_SQL: Final = """
INSERT INTO outbox_inbox (consumer_group, event_id, topic, partition, "offset", outcome)
SELECT %(group)s, event_id, %(topic)s, %(partition)s, place, outcome
  FROM unnest(%(events)s::text[], %(offsets)s::bigint[], %(outcomes)s::text[]) AS d (event_id, place, outcome)
 ORDER BY event_id
ON CONFLICT (consumer_group, event_id) DO NOTHING
"""
SEQUENCES_SQL: Final = """
UPDATE outbox_inbox_aggregate a SET sequence = k.sequence
  FROM unnest(%(types)s::text[], %(ids)s::text[], %(sequences)s::bigint[]) AS k (type, id, sequence)
 WHERE a.consumer_group = %(group)s AND a.topic = %(topic)s AND a.aggregate_type = k.type AND a.aggregate_id = k.id
   AND a.sequence < k.sequence
"""
# Nothing of the partition is in hand any more.
SETTLED_SQL: Final = """
UPDATE outbox_inbox_partition SET in_hand_to = in_hand_from - 1
 WHERE consumer_group = %(group)s AND topic = %(topic)s AND partition = %(partition)s AND worker = %(worker)s
"""

Key = tuple[str, str]


class SeenMeanwhile(Exception):
    """Another transaction handled a message of the same id under another aggregate; this one starts over."""


@dataclass(slots=True)
class Handled:
    """What came of messages.

    Attributes:
        count: how many of them are done with, the first ones.
        outcomes: how many ended how.
        halted: why the others were not begun: nothing can be handled now.
    """

    count: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    halted: Fault | None = None


def messages_handle(*, group: str, topic: str, worker: str, records: Sequence[Record], died: bool = False) -> Handled:
    """Handle consecutive messages of one partition in one transaction.

    Args:
        group: consumer group.
        topic: without its prefix.
        worker: who holds the partition.
        records: at least one.
        died: a worker died on the first of them, which stood alone: it is not tried here again, but parked.

    Raises:
        django.db.Error: the database is in trouble; nothing was done.
    """
    while True:
        try:
            return run_in_transaction(lambda: _Batch(group, topic, worker, records, died).run())
        except SeenMeanwhile:
            continue


def aggregates_lock(*, group: str, topic: str, keys: Sequence[Key]) -> dict[Key, int]:
    """Lock aggregates for the rest of the transaction; the last number handled of each."""
    if not keys:
        return {}
    with connection.cursor() as cursor:
        values: dict[str, Any] = {
            "group": group,
            "topic": topic,
            "types": [key[0] for key in keys],
            "ids": [key[1] for key in keys],
        }
        cursor.execute(LOCK_SQL, values)
        return {(type_, name): sequence for type_, name, sequence in cursor.fetchall()}


def sequences_advance(*, group: str, topic: str, sequences: dict[Key, int]) -> None:
    """Write the last numbers of aggregates that are locked; none goes back."""
    if not sequences:
        return
    with connection.cursor() as cursor:
        values: dict[str, Any] = {
            "group": group,
            "topic": topic,
            "types": [key[0] for key in sequences],
            "ids": [key[1] for key in sequences],
            "sequences": list(sequences.values()),
        }
        cursor.execute(SEQUENCES_SQL, values)


class _Batch:
    """One run of the transaction."""

    def __init__(self, group: str, topic: str, worker: str, records: Sequence[Record], died: bool) -> None:
        self._values: dict[str, Any] = {
            "group": group,
            "topic": topic,
            "partition": records[0].partition,
            "worker": worker,
        }
        self._group, self._topic, self._died = group, topic, died
        self._read = [(record, envelope_read(record)) for record in records]
        self._last: dict[Key, int] = {}
        self._before: dict[Key, int] = {}
        self._queued: set[Key] = set()
        self._seen: set[str] = set()
        self._done: list[tuple[str, int, Outcome]] = []

    def run(self) -> Handled:
        wanted = [envelope for record, envelope in self._read if self._is_wanted(record, envelope)]
        keys = list({envelope.aggregate for envelope in wanted if envelope.keyed})
        self._before = aggregates_lock(group=self._group, topic=self._topic, keys=keys)
        self._last = dict(self._before)
        self._look(keys, [envelope.id for envelope in wanted])
        handled = self._together() if len(self._read) > 1 else None
        if handled is None:
            handled = self._take(alone=True)
        self._write()
        return handled

    def _together(self) -> Handled | None:
        """All messages in one savepoint, which is twice as fast; None, with nothing done, when a handler failed."""
        queued, seen = set(self._queued), set(self._seen)
        try:
            with transaction.atomic():
                handled = self._take(alone=False)
                constraints_check()
        except Exception as exc:
            if is_database_trouble(exc):
                raise
            log.info("batch_taken_apart", group=self._group, topic=self._topic, error=type(exc).__name__)
        else:
            return handled
        self._last, self._queued, self._seen, self._done = dict(self._before), queued, seen, []
        return None

    def _take(self, *, alone: bool) -> Handled:
        handled = Handled()
        ends = time.monotonic() + LONGEST_SECONDS
        for record, envelope in self._read:
            if handled.count and time.monotonic() > ends:
                break
            try:
                outcome = self._one(record, envelope, alone)
            except Halted as exc:
                handled.halted = exc.fault
                break
            handled.outcomes[outcome] += 1
            handled.count += 1
        return handled

    def _is_wanted(self, record: Record, envelope: Envelope) -> bool:
        """Whether something is to be done; a type of which nobody heard, and a tombstone, are passed by."""
        if envelope.fault or handler_of(self._group, self._topic, envelope) is not None:
            return True
        return not envelope.type and record.value is not None

    def _look(self, keys: Sequence[Key], events: Sequence[str]) -> None:
        with connection.cursor() as cursor:
            if keys:
                types, ids = [key[0] for key in keys], [key[1] for key in keys]
                cursor.execute(QUEUED_SQL, {**self._values, "types": types, "ids": ids})
                self._queued = {(type_, name) for type_, name in cursor.fetchall()}
            if events:
                cursor.execute(SEEN_SQL, {**self._values, "events": list(events)})
                self._seen = {name for (name,) in cursor.fetchall()}

    def _one(self, record: Record, envelope: Envelope, alone: bool) -> Outcome:
        if not self._is_wanted(record, envelope) or envelope.id in self._seen:
            return Outcome.IGNORED
        outcome = self._wanted(record, envelope, alone)
        self._seen.add(envelope.id)
        self._done.append((envelope.id, record.offset, outcome))
        return outcome

    def _wanted(self, record: Record, envelope: Envelope, alone: bool) -> Outcome:
        if envelope.aggregate in self._queued:
            message_park(group=self._group, topic=self._topic, record=record, envelope=envelope)
            return Outcome.WAITING
        late = envelope.sequence is not None and envelope.sequence <= self._last.get(envelope.aggregate, 0)
        handler = handler_of(self._group, self._topic, envelope)
        if late and handler is not None and not handler.takes_late:
            return Outcome.IGNORED
        fault: Fault | None = WORKER_DIED
        if not self._died:
            fault = message_attempt(
                group=self._group,
                topic=self._topic,
                record=record,
                envelope=envelope,
                attempt=1,
                late=late,
                alone=alone,
            )
        outcome = Outcome.SUCCESS
        if fault is not None:
            wait = wait_after(fault, 1)
            outcome = Outcome.DLQ if wait is None else Outcome.RETRY
            holds = wait is not None or (handler is not None and handler.blocks)
            message_park(
                group=self._group,
                topic=self._topic,
                record=record,
                envelope=envelope,
                fault=fault,
                wait=wait,
                blocks=holds and wait is None,
            )
            if holds:
                # What comes after it waits, so it is not passed yet.
                self._queued.add(envelope.aggregate)
                return outcome
        if envelope.sequence is not None and not late:
            self._last[envelope.aggregate] = envelope.sequence
        return outcome

    def _write(self) -> None:
        moved = {key: last for key, last in self._last.items() if last > self._before.get(key, 0)}
        sequences_advance(group=self._group, topic=self._topic, sequences=moved)
        with connection.cursor() as cursor:
            if self._done:
                events, offsets, outcomes = zip(*self._done, strict=True)
                values: dict[str, Any] = {
                    "events": list(events),
                    "offsets": list(offsets),
                    "outcomes": [str(one) for one in outcomes],
                }
                cursor.execute(DONE_SQL, {**self._values, **values})
                if cursor.rowcount < len(events):
                    raise SeenMeanwhile
            cursor.execute(SETTLED_SQL, self._values)
