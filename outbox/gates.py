"""Gates: whether a subscriber may be given events now, and how many; one row, looked at before each chunk."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final

import structlog
from django.db import connection

log = structlog.get_logger(__name__)

BREAKER_FIRST_SECONDS: Final = 1.0
BREAKER_LONGEST_SECONDS: Final = 30.0

LOOK_SQL: Final = """
SELECT paused_at IS NOT NULL AND COALESCE(paused_until > clock_timestamp(), true),
       breaker_failures > 0, COALESCE(breaker_until > clock_timestamp(), false),
       rate_limit, concurrency, keep_successes
  FROM outbox_subscription WHERE name = %s
"""

# The probe after an outage: whoever moves the moment on may try one batch, the others wait for what comes of it.
PROBE_SQL: Final = """
UPDATE outbox_subscription SET breaker_until = clock_timestamp() + %(seconds)s * interval '1 second'
 WHERE name = %(name)s AND breaker_failures > 0 AND breaker_until <= clock_timestamp() RETURNING name
"""
RETURN_SQL: Final = """
UPDATE outbox_subscription SET breaker_until = clock_timestamp() WHERE name = %(name)s AND breaker_failures > 0
"""
OPEN_SQL: Final = """
UPDATE outbox_subscription
   SET breaker_failures = breaker_failures + 1, breaker_message = %(message)s,
       breaker_until = clock_timestamp()
         + %(jitter)s * least(%(longest)s, %(first)s * 2 ^ least(breaker_failures, 20)) * interval '1 second'
 WHERE name = %(name)s RETURNING breaker_failures
"""
CLOSE_SQL: Final = """
UPDATE outbox_subscription SET breaker_failures = 0, breaker_until = NULL, breaker_message = ''
 WHERE name = %(name)s AND breaker_failures > 0
"""

# The token bucket of all processes: filled by the time that passed, up to one second's worth. The row is locked while
# it is looked at, so two workers never take the same token.
TAKE_SQL: Final = """
WITH locked AS (SELECT name, tokens, refilled_at FROM outbox_subscription WHERE name = %(name)s FOR UPDATE),
looked AS (
  SELECT name, least(greatest(1, %(rate)s), tokens + %(rate)s * greatest(0,
           EXTRACT(epoch FROM clock_timestamp() - COALESCE(refilled_at, 'epoch'))))::float8 AS have
    FROM locked
)
UPDATE outbox_subscription s SET tokens = have - least(%(want)s, floor(have)), refilled_at = clock_timestamp()
  FROM looked l WHERE s.name = l.name RETURNING least(%(want)s, floor(have))::int
"""
GIVE_BACK_SQL: Final = "UPDATE outbox_subscription SET tokens = tokens + %(count)s WHERE name = %(name)s"


class Gate(Enum):
    """Whether a subscriber may be given events now."""

    OPEN = "open"
    CLOSED = "closed"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a subscription told.

    Attributes:
        gate: PROBE means that a probe is due, and must be claimed first.
        rate_limit: events a second over all processes, or None for as declared.
        concurrency: calls at a time over all processes, or None for as declared.
        keep_successes: whether an attempt of each event that went through is kept.
    """

    gate: Gate
    rate_limit: float | None = None
    concurrency: int | None = None
    keep_successes: bool = False


def gate_look(name: str) -> Look:
    """Whether the subscriber may be given events, and within which limits."""
    with connection.cursor() as cursor:
        cursor.execute(LOOK_SQL, [name])
        row = cursor.fetchone()
    if row is None:
        return Look(Gate.CLOSED)
    paused, broken, waiting, rate_limit, concurrency, keep_successes = row
    gate = Gate.CLOSED if paused or waiting else Gate.PROBE if broken else Gate.OPEN
    return Look(gate, rate_limit, concurrency, keep_successes)


def probe_claim(name: str, *, seconds: float) -> bool:
    """Claim the one try after an outage, for ``seconds``."""
    with connection.cursor() as cursor:
        cursor.execute(PROBE_SQL, {"name": name, "seconds": seconds})
        return cursor.fetchone() is not None


def probe_return(name: str) -> None:
    """Give a claimed try back unused: there was nothing to try it with."""
    with connection.cursor() as cursor:
        cursor.execute(RETURN_SQL, {"name": name})


def breaker_open(name: str, *, message: str) -> None:
    """Stop giving events to a subscriber whose other side is away, for 1 to 30 seconds, longer each time."""
    with connection.cursor() as cursor:
        values = {"first": BREAKER_FIRST_SECONDS, "longest": BREAKER_LONGEST_SECONDS}
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads probes, no secret
        cursor.execute(OPEN_SQL, {"name": name, "message": message[:1000], "jitter": jitter, **values})
        row = cursor.fetchone()
    log.warning("breaker_opened", subscriber=name, failures=row[0] if row else 0, message=message[:200])


def breaker_close(name: str) -> None:
    """The other side answers again."""
    with connection.cursor() as cursor:
        cursor.execute(CLOSE_SQL, {"name": name})
    log.info("breaker_closed", subscriber=name)


def tokens_take(name: str, *, rate: float, want: int) -> int:
    """Take up to ``want`` tokens of a bucket that fills with ``rate`` a second; how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(TAKE_SQL, {"name": name, "rate": rate, "want": want})
        row = cursor.fetchone()
        return int(row[0]) if row else 0


def tokens_give_back(name: str, count: int) -> None:
    """Give back tokens that were not used."""
    if count > 0:
        with connection.cursor() as cursor:
            cursor.execute(GIVE_BACK_SQL, {"name": name, "count": count})
