"""The lease on a sync state: long external work without a lock, and a fencing token for every write at its end.

Taking a row adds one to its token. Each later write of the holder locks the row **where the token is still its own**;
a worker that was suspended past its lease finds no row and changes nothing. The lease's time only keeps others from
working in vain; safety rests on the token and on the one request in flight per row.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from django.db import connection

from customers.models import SyncState

# Due rows of one integration in one class, oldest first. The partial index syncstate_due holds dirty rows alone, and a
# taken row's next_attempt_at is its lease's end, so the scan starts at the rows that it takes and stops after them,
# whatever else is dirty. SKIP LOCKED: two workers never wait for each other and never take the same row. The clock is
# the server's; statement_timestamp() is stable, so it can bound the index scan. Rows that a protected change has taken
# are its own until it ends.
CLAIM_SQL: Final = """
WITH due AS (
    SELECT id FROM customers_syncstate
     WHERE dirty_at IS NOT NULL AND integration = %(integration)s AND priority = %(priority)s
       AND next_attempt_at <= statement_timestamp()
       AND (lease_until IS NULL OR lease_until <= statement_timestamp()) AND saga_id IS NULL
     ORDER BY next_attempt_at
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED)
UPDATE customers_syncstate AS s
   SET lease_owner = %(owner)s, lease_token = lease_token + 1,
       lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
       next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s)
  FROM due WHERE s.id = due.id
RETURNING s.id, s.lease_token, s.poke_count, s.priority, s.correlation_id, s.traceparent
"""

# One row, due or not, unless somebody holds it; by the protected change that has taken it, or by anybody if none has.
TAKE_SQL: Final = """
UPDATE customers_syncstate
   SET lease_owner = %(owner)s, lease_token = lease_token + 1,
       lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
       next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s)
 WHERE id = %(state)s AND (lease_until IS NULL OR lease_until <= clock_timestamp())
   AND saga_id IS NOT DISTINCT FROM %(saga)s::uuid
RETURNING id, lease_token, poke_count, priority, correlation_id, traceparent
"""

RENEW_SQL: Final = """
UPDATE customers_syncstate
   SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
       next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s)
 WHERE id = %(state)s AND lease_token = %(token)s
"""


class LeaseLost(Exception):
    """Another worker took the row meanwhile; nothing may be written on behalf of this lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A taken row.

    Attributes:
        state_id: the row.
        token: its fencing token.
        poke_count: its pokes when it was taken; what came later is not served by this look.
        priority: class of the work.
        correlation_id: of what asked for the look last.
        traceparent: its trace.
        ends: end of the lease on this process's monotonic clock, read before the taking, so never too late.
    """

    state_id: int
    token: int
    poke_count: int
    priority: int
    ends: float
    correlation_id: str = ""
    traceparent: str = ""

    def remaining(self) -> float:
        """Seconds until others may take the row."""
        return self.ends - time.monotonic()


def lease_claim(*, integration: str, priority: int, limit: int, seconds: float) -> list[Lease]:
    """Take up to ``limit`` due rows of a class, oldest first."""
    before = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(
            CLAIM_SQL,
            {
                "integration": integration,
                "priority": priority,
                "limit": limit,
                "seconds": seconds,
                "owner": lease_owner(),
            },
        )
        return [_lease(row, before + seconds) for row in cursor.fetchall()]


def lease_take(state_id: int, *, seconds: float, saga: UUID | None = None) -> Lease | None:
    """Take one row, or None while another worker holds it.

    Args:
        saga: the protected change on whose behalf; a row that one has taken is nobody else's.
    """
    before = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(TAKE_SQL, {"state": state_id, "seconds": seconds, "owner": lease_owner(), "saga": saga})
        row = cursor.fetchone()
    return _lease(row, before + seconds) if row else None


def lease_renew(lease: Lease, *, seconds: float) -> Lease:
    """The same lease with a new end.

    Raises:
        LeaseLost: it was over, and another worker took the row.
    """
    before = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(RENEW_SQL, {"state": lease.state_id, "token": lease.token, "seconds": seconds})
        if cursor.rowcount != 1:
            raise LeaseLost
    return replace(lease, ends=before + seconds)


def lease_locked(lease: Lease) -> SyncState:
    """The row, locked until the transaction ends, if the lease still holds: what every write begins with.

    Raises:
        LeaseLost: the token moved on, or the row is gone.
    """
    state = SyncState.objects.select_for_update(no_key=True).filter(pk=lease.state_id, lease_token=lease.token).first()
    if state is None:
        raise LeaseLost
    return state


def _lease(row: Sequence[Any], ends: float) -> Lease:
    return Lease(
        state_id=row[0],
        token=row[1],
        poke_count=row[2],
        priority=row[3],
        correlation_id=row[4],
        traceparent=row[5],
        ends=ends,
    )


def lease_owner() -> str:
    """Who takes leases here: machine, process and thread."""
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"[:128]
