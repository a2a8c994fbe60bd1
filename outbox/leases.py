"""Leases: which lanes of a subscriber this worker may read, and until when.

A lease protects the outside: no call is begun that could outlive it. The epoch protects the database: each claim
raises it, and a worker whose epoch has passed changes nothing any more, however late it wakes up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import connection, transaction

from outbox.failures import Failed, Succeeded
from outbox.lanes import LANES

# Those of our lanes that are ours still, locked. Whoever locks the rows of several lanes does it in the order of their
# numbers, or passes over those that another holds (here, settles, decisions of people): so nobody waits in a circle.
OURS_SQL: Final = """
SELECT l.id, l.lane FROM outbox_lane AS l
  JOIN unnest(%(lanes)s::smallint[], %(epochs)s::bigint[]) AS h (lane, epoch) ON h.lane = l.lane AND h.epoch = l.epoch
 WHERE l.subscription_id = %(name)s ORDER BY l.lane FOR UPDATE OF l
"""
# A lease is free when it has run out or was given back. A lane that is taken from somebody who did not give it back
# gets a strike: that worker died or was suspended, perhaps of the lane's next event. SKIP LOCKED: two workers that
# claim at once share what is free, and neither waits. Our own that an error made us forget come back whatever our share
# is by now: what is too much is given back at once, or nobody could have it until its lease ran out.
CLAIM_SQL: Final = """
WITH own AS (
  SELECT id FROM outbox_lane
   WHERE subscription_id = %(name)s AND owner = %(owner)s AND NOT lane = ANY (%(held)s::smallint[])
     FOR UPDATE SKIP LOCKED
), free AS (
  SELECT id FROM outbox_lane
   WHERE subscription_id = %(name)s AND lease_until < clock_timestamp() AND owner <> %(owner)s
   ORDER BY lease_until LIMIT greatest(0, %(limit)s - (SELECT count(*) FROM own)) FOR UPDATE SKIP LOCKED
)
UPDATE outbox_lane AS l
   SET owner = %(owner)s, epoch = l.epoch + 1, lease_until = clock_timestamp() + %(seconds)s * interval '1 second',
       strikes = least(l.strikes + CASE WHEN l.owner IN ('', %(owner)s) THEN 0 ELSE 1 END, 100)
  FROM (SELECT id FROM own UNION ALL SELECT id FROM free) AS taken WHERE l.id = taken.id
RETURNING l.lane, l.epoch, l.cursor, l.strikes
"""
RENEW_SQL: Final = f"""
WITH ours AS ({OURS_SQL})
UPDATE outbox_lane AS l SET lease_until = clock_timestamp() + %(seconds)s * interval '1 second'
  FROM ours WHERE l.id = ours.id
RETURNING l.lane
"""  # noqa: S608 - constants only
RELEASE_SQL: Final = f"""
WITH ours AS ({OURS_SQL})
UPDATE outbox_lane AS l SET owner = '', lease_until = clock_timestamp() FROM ours WHERE l.id = ours.id
"""  # noqa: S608 - constants only
LEAVE_SQL: Final = """
WITH own AS (
  SELECT id FROM outbox_lane WHERE subscription_id = %(name)s AND owner = %(owner)s ORDER BY lane FOR UPDATE
)
UPDATE outbox_lane AS l SET owner = '', lease_until = clock_timestamp() FROM own WHERE l.id = own.id
"""
BLOCKED_SQL: Final = """
SELECT lane, aggregate_type, aggregate_id FROM outbox_detour
 WHERE subscription_id = %(name)s AND lane = ANY (%(lanes)s::smallint[])
"""
# Relays say that they are there, so that each takes its share only. Celery's short drains do not: they take what is
# free and give it back.
PRESENT_SQL: Final = """
INSERT INTO outbox_relay AS r (owner, subscription_id) VALUES (%(owner)s, %(name)s)
ON CONFLICT (owner, subscription_id) DO UPDATE SET seen_at = statement_timestamp()
"""
OTHERS_SQL: Final = """
SELECT count(*) FROM outbox_relay
 WHERE subscription_id = %(name)s AND owner <> %(owner)s AND seen_at > clock_timestamp() - %(seconds)s * interval '1 s'
"""
# Under a limit of concurrency claims queue for the subscription's row, so that two workers never count each other out.
QUEUE_SQL: Final = "SELECT 1 FROM outbox_subscription WHERE name = %(name)s FOR UPDATE"
OWNERS_SQL: Final = """
SELECT DISTINCT owner FROM outbox_lane
 WHERE subscription_id = %(name)s AND owner <> '' AND lease_until > clock_timestamp() ORDER BY owner
"""
GONE_SQL: Final = """
DELETE FROM outbox_relay
 WHERE owner = %(owner)s OR seen_at < clock_timestamp() - interval '1 hour'
"""


@dataclass(slots=True)
class HeldLane:
    """A lane that this worker holds.

    Attributes:
        lane: its number.
        epoch: of our claim.
        cursor: the last position that went through, here in memory.
        settled: the cursor as the database has it.
        strikes: leases on it that ended badly since it last moved.
        settled_at: ``time.monotonic()`` of the last settle.
        processed: events that went through since the last settle.
        errors: events that failed since the last settle.
        short: the last read found less than it asked for.
        rest_until: ``time.monotonic()`` until when nothing is read of it, after an outage of its own.
        outages: outages in a row of this lane alone.
        blocked: aggregates whose detour the holder knows. Only the holder ends one, and one that a person made begins
            when the holder starts it (see ``outbox.deciding``), so no event of them is delivered past it.
        successes: attempts that went through and are kept with the next settle.
    """

    lane: int
    epoch: int
    cursor: int
    settled: int
    strikes: int
    settled_at: float = 0.0
    processed: int = 0
    errors: int = 0
    short: bool = False
    rest_until: float = 0.0
    outages: int = 0
    blocked: set[tuple[str, str]] = field(default_factory=set)
    successes: list[Succeeded] = field(default_factory=list)


class LaneLeases:
    """The lanes of one subscriber that this worker holds.

    Args:
        name: of the subscriber.
        owner: name of this worker, different from all others.
        seconds: length of a lease.
        resident: True for a relay that stays, and shares the lanes evenly with the other relays.

    Attributes:
        concurrency: workers that may hold lanes at a time, or None.
    """

    def __init__(self, name: str, owner: str, seconds: float, *, resident: bool) -> None:
        self.held: dict[int, HeldLane] = {}
        self._name = name
        self._owner = owner
        self._seconds = seconds
        self._resident = resident
        self._share_known = LANES
        self.concurrency: int | None = None
        self.claims = 0
        self._until = 0.0
        self._next_look = 0.0
        self._next_rank = 0.0

    def remaining(self) -> float:
        """Seconds for which the leases surely last, by a clock that was read before they were asked for."""
        return self._until - time.monotonic()

    def keep(self) -> None:
        """Renew what is held and claim what is free, when it is time to."""
        now = time.monotonic()
        if self.held and self._until - now < self._seconds * 2 / 3:
            self.renew()
        if now >= self._next_look:
            self._next_look = now + (1.0 if self._resident else 0.0)
            self._claim(self._share())

    def renew(self) -> None:
        """Renew all leases now; lanes that somebody else has claimed meanwhile are dropped."""
        started = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(RENEW_SQL, {"name": self._name, "seconds": self._seconds, **self._keys(self.held.values())})
            kept = {row[0] for row in cursor.fetchall()}
        self.drop(set(self.held) - kept)
        self._until = started + self._seconds

    def drop(self, lanes: Iterable[int]) -> None:
        """Forget lanes that are lost."""
        for lane in list(lanes):
            self.held.pop(lane, None)

    def block(self, failed: Iterable[Failed]) -> None:
        """Take note of the detours that failures have begun."""
        for one in failed:
            if not one.passed:
                self.held[one.failure.event.lane].blocked.add(one.failure.event.aggregate)

    def forget(self) -> None:
        """Forget all lanes without a word to the database, after its connection was lost."""
        self.held.clear()
        self._next_look = 0.0

    def excess(self) -> list[HeldLane]:
        """Lanes beyond this relay's share, to be settled and given back."""
        if self.held and self.concurrency is not None and self._is_one_too_many(self.concurrency):
            return list(self.held.values())
        if not self._resident:
            return []
        surplus = len(self.held) - self._share_known
        return list(self.held.values())[:surplus] if surplus > 0 else []

    def release(self, lanes: Collection[HeldLane]) -> None:
        """Give lanes back; they must be settled."""
        with connection.cursor() as cursor:
            cursor.execute(RELEASE_SQL, {"name": self._name, **self._keys(lanes)})
        self.drop([lane.lane for lane in lanes])

    def leave(self) -> None:
        """Give everything back, also what an error made us forget, and say goodbye."""
        with connection.cursor() as cursor:
            cursor.execute(LEAVE_SQL, {"name": self._name, "owner": self._owner})
            if self._resident:
                cursor.execute(GONE_SQL, {"owner": self._owner})
        self.held.clear()

    def _share(self) -> int:
        if not self._resident:
            return LANES
        values: dict[str, Any] = {"name": self._name, "owner": self._owner, "seconds": max(5.0, self._seconds / 3)}
        with connection.cursor() as cursor:
            cursor.execute(PRESENT_SQL, values)
            cursor.execute(OTHERS_SQL, values)
            others = cursor.fetchone()[0]
        workers = others + 1 if self.concurrency is None else min(others + 1, self.concurrency)
        self._share_known = math.ceil(LANES / workers)
        return self._share_known

    def _is_one_too_many(self, limit: int) -> bool:
        """Whether others come before us; all workers rank each other alike, so exactly ``limit`` of them stay."""
        now = time.monotonic()
        if now < self._next_rank:
            return False
        self._next_rank = now + 0.5
        owners = self._owners()
        return self._owner in owners and owners.index(self._owner) >= limit

    def _owners(self) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute(OWNERS_SQL, {"name": self._name})
            return [row[0] for row in cursor.fetchall()]

    def _claim(self, share: int) -> None:
        room = share - len(self.held)
        if room <= 0:
            return
        started = time.monotonic()
        if self.concurrency is None:
            claimed = self._claimed(room)
        else:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute(QUEUE_SQL, {"name": self._name})
                others = set(self._owners()) - {self._owner}
                claimed = self._claimed(room) if len(others) < self.concurrency else []
        if not claimed:
            return
        self.claims += 1
        for lane, epoch, position, strikes in claimed:
            self.held[lane] = HeldLane(lane, epoch, position, position, strikes)
        with connection.cursor() as cursor:
            cursor.execute(BLOCKED_SQL, {"name": self._name, "lanes": [row[0] for row in claimed]})
            for lane, aggregate_type, aggregate_id in cursor.fetchall():
                self.held[lane].blocked.add((aggregate_type, aggregate_id))
        ends = started + self._seconds
        self._until = ends if len(self.held) == len(claimed) else min(self._until, ends)

    def _claimed(self, room: int) -> list[tuple[int, int, int, int]]:
        values: dict[str, Any] = {"name": self._name, "owner": self._owner, "seconds": self._seconds}
        with connection.cursor() as cursor:
            cursor.execute(CLAIM_SQL, {**values, "held": list(self.held), "limit": room})
            claimed: list[tuple[int, int, int, int]] = cursor.fetchall()
            return claimed

    @staticmethod
    def _keys(lanes: Iterable[HeldLane]) -> dict[str, list[int]]:
        held = list(lanes)
        return {"lanes": [lane.lane for lane in held], "epochs": [lane.epoch for lane in held]}
