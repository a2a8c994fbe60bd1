"""The lease on an operation: one holder at a time, and a fencing token for every write of it.

Claiming adds one to the token. Every later write of the holder is conditional on its own token, so of two workers that
both believe they hold an operation only the later one can commit anything. The lease's time only keeps others from
taking what somebody still works on.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final

from django.db import connection

from operations.long_actions.errors import LeaseLost

# The longest due one that nobody holds, by its partial index; the state of an operation is looked at by its holder.
# SKIP LOCKED: two workers that claim at once take different ones. A lease that ran out without being given back is a
# strike: its holder died or hung, perhaps of one of the items, so batches become small until its batch is behind.
CLAIM_SQL: Final = """
WITH due AS (
    SELECT id FROM operations_operation
     WHERE (state = 'running' OR begun > succeeded + failed + skipped)
       AND next_step_at <= statement_timestamp() AND lease_until <= statement_timestamp()
       AND kind = ANY (%(kinds)s) AND (%(only)s::bigint IS NULL OR id = %(only)s)
     ORDER BY next_step_at LIMIT 1
       FOR NO KEY UPDATE SKIP LOCKED)
UPDATE operations_operation AS o
   SET lease_owner = %(owner)s, lease_token = lease_token + 1,
       lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
       careful_through = CASE WHEN lease_owner <> '' AND strikes = 0 THEN begun + batch ELSE careful_through END,
       strikes = least(strikes + CASE WHEN lease_owner = '' THEN 0 ELSE 1 END, 100)
  FROM due WHERE o.id = due.id
RETURNING o.id, o.kind, o.lease_token
"""
RENEW_SQL: Final = """
UPDATE operations_operation SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s)
 WHERE id = %(id)s AND lease_token = %(token)s
"""
RELEASE_SQL: Final = """
UPDATE operations_operation
   SET lease_owner = '', lease_until = clock_timestamp(),
       next_step_at = clock_timestamp() + make_interval(secs => %(wait)s)
 WHERE id = %(id)s AND lease_token = %(token)s
"""


@dataclass(slots=True)
class Lease:
    """A held operation.

    Attributes:
        id: of the operation.
        kind: name of its kind.
        token: its fencing token.
        ends: end of the lease on this process's monotonic clock, read before it was asked for, so never too late.
    """

    id: int
    kind: str
    token: int
    ends: float

    def remaining(self) -> float:
        """Seconds until others may take it."""
        return self.ends - time.monotonic()

    def renew(self, seconds: float) -> None:
        """Hold it for that long from now.

        Raises:
            LeaseLost: it was over, and another worker took it.
        """
        started = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(RENEW_SQL, {"id": self.id, "token": self.token, "seconds": seconds})
            if cursor.rowcount != 1:
                raise LeaseLost
        self.ends = started + seconds

    def release(self, *, wait: float) -> None:
        """Give it back, to be taken again after ``wait`` seconds; nothing if another worker took it."""
        with connection.cursor() as cursor:
            cursor.execute(RELEASE_SQL, {"id": self.id, "token": self.token, "wait": wait})


def lease_claim(*, kinds: list[str], seconds: float, only: int | None = None) -> Lease | None:
    """Take the longest due operation of these kinds, or None.

    Args:
        only: number of the one operation that will do.
    """
    started = time.monotonic()
    owner = f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"[:128]
    with connection.cursor() as cursor:
        cursor.execute(CLAIM_SQL, {"kinds": kinds, "owner": owner, "seconds": seconds, "only": only})
        row = cursor.fetchone()
    return None if row is None else Lease(row[0], row[1], row[2], started + seconds)
