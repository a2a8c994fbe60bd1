"""The gate before every call to an integration: one shared token bucket and one circuit breaker per account and mode.

Both live in a row of PostgreSQL, so they hold over all processes and survive Redis; at some tens of calls a second one
narrow update per call is nothing. Every decision is a single statement under the row's lock, with the server's clock:
two workers can never spend one token twice, and skewed clocks of machines do not matter. Nothing's correctness rests
on this gate; it only spares the other side.

Classes: a bulk call leaves 40 % of the bucket alone and a webhook's call 20 %, so an interactive call always finds a
token within ``1 / rate`` seconds, however large the import beside it. The bucket is small (a fifth of a second's
worth), so that no second sees much more than ``rate`` calls.
"""

from __future__ import annotations

import time
from typing import Any, Final

from django.db import connection
from django.db.models import QuerySet

from customers.integrations import Integration, RateLimited
from customers.models import Priority, SyncAccount

_RESERVED: Final = {Priority.INTERACTIVE: 0.0, Priority.WEBHOOK: 0.2, Priority.BULK: 0.4}
_SILENCES_TOLERATED: Final = 3
_CLOSED_AT_MOST: Final = 15.0

# One token, unless the account is closed or the tokens left would be below what classes before this one may want.
TAKE_SQL: Final = """
UPDATE customers_syncaccount
   SET tokens = LEAST(%(burst)s, tokens + %(rate)s * GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - refilled_at)))
                - 1,
       refilled_at = clock_timestamp()
 WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
   AND (closed_until IS NULL OR closed_until <= clock_timestamp())
   AND LEAST(%(burst)s, tokens + %(rate)s * GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - refilled_at))) - 1
       >= %(reserved)s
RETURNING failures
"""

# Why there was none: seconds for which the account stays closed, and the tokens there are now.
LOOK_SQL: Final = """
SELECT GREATEST(0, EXTRACT(EPOCH FROM closed_until - clock_timestamp()))::float,
       LEAST(%(burst)s, tokens + %(rate)s * GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - refilled_at)))::float,
       error
  FROM customers_syncaccount
 WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
"""

# Closing never shortens a closing that is in force.
CLOSE_SQL: Final = """
UPDATE customers_syncaccount
   SET closed_until = GREATEST(closed_until, clock_timestamp() + make_interval(secs => %(seconds)s)), error = %(error)s
 WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
"""

# A call without an answer. From the third in a row on the account is closed: 0.5, 1, 2 … 15 seconds. When the time is
# over the next calls are the probe.
SILENCE_SQL: Final = """
UPDATE customers_syncaccount
   SET failures = failures + 1, error = %(error)s,
       closed_until = CASE WHEN failures + 1 >= %(tolerated)s
           THEN clock_timestamp()
                + make_interval(secs => LEAST(%(longest)s, 0.5 * power(2, LEAST(10, failures + 1 - %(tolerated)s))))
           ELSE closed_until END
 WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
"""


class NoToken(RateLimited):
    """Our own limit: the call was not made."""


class Gate:
    """The bucket and the breaker of one integration's account.

    Args:
        integration: whose ``account``, ``livemode`` and ``rate`` count.
    """

    def __init__(self, integration: Integration) -> None:
        rate = integration.rate or 1e9
        self._burst = max(1.0, rate / 5)
        self._key: dict[str, Any] = {
            "integration": integration.name,
            "account": integration.account,
            "livemode": integration.livemode,
        }
        self._parameters: dict[str, Any] = {**self._key, "rate": rate, "burst": self._burst}
        self._rate = rate
        self._failures = 0

    def take(self, priority: int, *, patience: float) -> None:
        """Take one token, waiting for it if need be.

        Args:
            priority: class of the work.
            patience: seconds to wait at most; when the wait would be longer, nothing is waited for.

        Raises:
            NoToken: none can be had in time, or the account is closed; ``retry_after`` says when to come back.
        """
        ends = time.monotonic() + patience
        reserved = min(_RESERVED[Priority(priority)] * self._burst, self._burst - 1)
        while True:
            with connection.cursor() as cursor:
                cursor.execute(TAKE_SQL, {**self._parameters, "reserved": reserved})
                if (row := cursor.fetchone()) is not None:
                    self._failures = row[0]
                    return
                cursor.execute(LOOK_SQL, self._parameters)
                row = cursor.fetchone()
            if row is None:
                self._open_account()
                continue
            closed, tokens, error = row
            wait = max(closed or 0.0, (reserved + 1 - tokens) / self._rate, 0.001)
            if closed or time.monotonic() + wait > ends:
                raise NoToken(error if closed else "", code="closed" if closed else "no_token", retry_after=wait)
            time.sleep(wait)

    def closed_for(self) -> float:
        """Seconds for which no call may start; 0 when calls may."""
        with connection.cursor() as cursor:
            cursor.execute(LOOK_SQL, self._parameters)
            row = cursor.fetchone()
        return float(row[0] or 0.0) if row else 0.0

    def answered(self) -> None:
        """The integration gave an answer, whatever it was: the run of silences is over."""
        if self._failures:
            self._account().update(failures=0, closed_until=None, error="")
            self._failures = 0

    def silent(self, error: str) -> None:
        """The integration gave no answer."""
        self._failures += 1
        parameters: dict[str, Any] = {"error": error, "tolerated": _SILENCES_TOLERATED, "longest": _CLOSED_AT_MOST}
        with connection.cursor() as cursor:
            cursor.execute(SILENCE_SQL, {**self._parameters, **parameters})

    def close(self, seconds: float, error: str) -> None:
        """Let nothing through for a while: the integration asked for it, or no call can succeed."""
        with connection.cursor() as cursor:
            cursor.execute(CLOSE_SQL, {**self._parameters, "seconds": seconds, "error": error})

    def _account(self) -> QuerySet[SyncAccount]:
        return SyncAccount.objects.filter(**self._key)

    def _open_account(self) -> None:
        # Two workers may both see no row; the unique constraint lets one insert and the other go on.
        SyncAccount.objects.bulk_create([SyncAccount(**self._key, tokens=self._burst)], ignore_conflicts=True)
