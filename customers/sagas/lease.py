"""The lease on a saga: one worker at a time, and a fencing token for every write of it, as with sync states."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import connection

from customers.models import Saga
from customers.sagas.errors import SagaLeaseLost
from customers.sync.lease import lease_owner

# The longest due ones, by the partial index saga_due. SKIP LOCKED: two workers take different ones.
CLAIM_SQL: Final = """
WITH due AS (
    SELECT id FROM customers_saga
     WHERE status IN ('running', 'undoing') AND next_attempt_at <= statement_timestamp()
       AND (lease_until IS NULL OR lease_until <= statement_timestamp())
     ORDER BY next_attempt_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED)
UPDATE customers_saga AS s
   SET lease_owner = %(owner)s, lease_token = lease_token + 1,
       lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
       next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s)
  FROM due WHERE s.id = due.id
RETURNING s.id, s.lease_token, s.correlation_id, s.traceparent
"""
RENEW_SQL: Final = """
UPDATE customers_saga
   SET lease_until = clock_timestamp() + make_interval(secs => %(seconds)s),
       next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s)
 WHERE id = %(saga)s AND lease_token = %(token)s AND status IN ('running', 'undoing')
"""


@dataclass(slots=True, kw_only=True)
class SagaLease:
    """A taken saga.

    Attributes:
        saga_id: which.
        token: its fencing token.
        ends: end of the lease on this process's monotonic clock, read before the taking, so never too late.
        correlation_id: of what asked for it.
        traceparent: its trace.
    """

    saga_id: UUID
    token: int
    ends: float
    correlation_id: str = ""
    traceparent: str = ""

    def renew(self, seconds: float) -> None:
        """Hold it for that long from now.

        Raises:
            SagaLeaseLost: another worker has it.
        """
        before = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(RENEW_SQL, {"saga": self.saga_id, "token": self.token, "seconds": seconds})
            if cursor.rowcount != 1:
                raise SagaLeaseLost
        self.ends = before + seconds


def sagas_claim(*, limit: int, seconds: float) -> list[SagaLease]:
    """Take up to ``limit`` due sagas, the longest due first."""
    before = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute(CLAIM_SQL, {"limit": limit, "seconds": seconds, "owner": lease_owner()})
        return [_lease(row, before + seconds) for row in cursor.fetchall()]


def saga_locked(lease: SagaLease) -> Saga:
    """The saga, its row locked until the transaction ends, if the lease still holds: what every write begins with.

    Everybody who locks several rows locks the saga first, then the customer, then sync states.

    Raises:
        SagaLeaseLost: the token moved on, or it has ended.
    """
    saga = Saga.objects.open().select_for_update(no_key=True).filter(pk=lease.saga_id, lease_token=lease.token).first()
    if saga is None:
        raise SagaLeaseLost
    return saga


def _lease(row: Sequence[Any], ends: float) -> SagaLease:
    return SagaLease(saga_id=row[0], token=row[1], ends=ends, correlation_id=row[2], traceparent=row[3])
