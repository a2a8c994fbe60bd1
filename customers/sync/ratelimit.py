"""The gate before every call to an integration: one shared token bucket and one circuit breaker per account and mode.

Both live in a row of PostgreSQL, so they hold over all processes and survive Redis; at some tens of calls a second one
narrow update per call is nothing. Every decision is a single statement under the row's lock, with the server's clock:
two workers can never spend one token twice, and skewed clocks of machines do not matter. Nothing's correctness rests
on this gate; it only spares the other side.

A caller reserves the next free moment and sleeps until it: nobody polls for what is handed out already, and no moment
is lost because somebody woke late. Classes differ in how far ahead they may reserve: an interactive call as far as it
is patient, a webhook's two calls, a bulk one a single one. So a person waits for two calls at most, however large the
import beside it. That would starve the others while people keep all moments for themselves; so a class that got
nothing for five calls (webhook) or ten (bulk) may reserve as far ahead as a person.

The other side counts the calls of any second. A bucket of ``burst`` tokens filled at ``pace`` lets through ``burst +
pace`` in one second at most, which is less than the rate: so hardly any call is refused, and 96 % of the rate are used.
"""

from __future__ import annotations

import time
from typing import Any, Final

from django.db import connection
from django.db.models import F, QuerySet

from customers.integrations import Integration, RateLimited
from customers.models import Priority, SyncAccount

# Of the rate: what is not spent. Calls that wait for a thread or a connection arrive closer together than they began.
_SPARED: Final = 0.04
_DEPTH: Final = {Priority.INTERACTIVE: 1e9, Priority.WEBHOOK: 2.0, Priority.BULK: 1.0}
# After how many calls of others a class that got none may reserve like the first one.
_TURN: Final = {Priority.INTERACTIVE: 0, Priority.WEBHOOK: 5, Priority.BULK: 10}
_SILENCES_TOLERATED: Final = 3
_CLOSED_AT_MOST: Final = 15.0

# One token, unless the account is closed or the reservations are too deep for this class. Tokens below zero are moments
# to come: the answer is how many of them to wait for.
TAKE_SQL: Final = """
UPDATE customers_syncaccount
   SET tokens = LEAST(%(burst)s, tokens + %(pace)s * GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - refilled_at)))
                - 1,
       refilled_at = clock_timestamp(),
       webhook_at = CASE WHEN %(priority)s = 1 THEN clock_timestamp() ELSE webhook_at END,
       bulk_at = CASE WHEN %(priority)s = 2 THEN clock_timestamp() ELSE bulk_at END
 WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
   AND (closed_until IS NULL OR closed_until <= clock_timestamp())
   AND LEAST(%(burst)s, tokens + %(pace)s * GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - refilled_at))) - 1
       >= CASE WHEN COALESCE(CASE %(priority)s WHEN 1 THEN webhook_at ELSE bulk_at END, '-infinity')
                    < clock_timestamp() - make_interval(secs => %(turn)s)
               THEN %(deepest)s ELSE %(depth)s END
RETURNING failures, GREATEST(0, -tokens)::float
"""

# Why there was none: seconds for which the account stays closed, and the tokens there are now.
LOOK_SQL: Final = """
SELECT GREATEST(0, EXTRACT(EPOCH FROM closed_until - clock_timestamp()))::float,
       LEAST(%(burst)s, tokens + %(pace)s * GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - refilled_at)))::float,
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
        self._pace = rate * (1 - _SPARED)
        self._burst = max(1.0, rate * _SPARED / 2)
        self._key: dict[str, Any] = {
            "integration": integration.name,
            "account": integration.account,
            "livemode": integration.livemode,
        }
        self._parameters: dict[str, Any] = {**self._key, "pace": self._pace, "burst": self._burst}
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
        wanted: dict[str, Any] = {"priority": int(priority), "turn": _TURN[Priority(priority)] / self._pace}
        while True:
            # As deep as can be waited for in what is left of the patience.
            deepest = -max(0.0, ends - time.monotonic()) * self._pace
            wanted |= {"deepest": deepest, "depth": max(deepest, -_DEPTH[Priority(priority)])}
            with connection.cursor() as cursor:
                cursor.execute(TAKE_SQL, {**self._parameters, **wanted})
                if (row := cursor.fetchone()) is not None:
                    self._failures = row[0]
                    if self._await(row[1] / self._pace) or time.monotonic() >= ends:
                        return
                    # Everybody overslept, as when the machine stands still: all at once would be too many.
                    continue
                cursor.execute(LOOK_SQL, self._parameters)
                row = cursor.fetchone()
            if row is None:
                self._open_account()
                continue
            closed, tokens, error = row
            missing = max(closed or 0.0, (1 - tokens) / self._pace, 0.001)
            if closed or time.monotonic() + missing > ends:
                raise NoToken(error if closed else "", code="closed" if closed else "no_token", retry_after=missing)
            # Too many are ahead of this class now.
            time.sleep(max((1 - _DEPTH[Priority(priority)] - tokens) / self._pace, 1 / self._pace))

    def _await(self, seconds: float) -> bool:
        """Sleep until the reserved moment; whether it is that moment, and not the next one's already.

        Raises:
            NoToken: the account was closed meanwhile; the moment is given back.
        """
        if seconds <= 0:
            return True
        moment = time.monotonic() + seconds
        time.sleep(seconds)
        with connection.cursor() as cursor:
            cursor.execute(LOOK_SQL, self._parameters)
            closed, _, error = cursor.fetchone()
        if closed:
            self._account().update(tokens=F("tokens") + 1)
            raise NoToken(error, code="closed", retry_after=closed)
        return time.monotonic() < moment + 1 / self._pace

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
        SyncAccount.objects.bulk_create([SyncAccount(**self._key)], ignore_conflicts=True)
