"""The gate before every call to an integration: one shared rate and one circuit breaker per account and mode.

Both live in a row of PostgreSQL, so they hold over all processes and survive Redis; at some tens of calls a second one
narrow update per call is nothing. Every decision is a single statement under the row's lock, with the server's clock:
two workers can never have one moment twice, and skewed clocks of machines do not matter. Nothing's correctness rests
on this gate; it only spares the other side.

A caller reserves the next free moment and sleeps until it: nobody polls for what is handed out already. Moments are
spread evenly ("Generic Cell Rate Algorithm", ITU-T I.371); those that nobody wanted for an instant are kept, a few, so
that a machine that stood still for that long has lost nothing. The other side counts the calls of any second, and so
does this: beside the even spread, a call starts no earlier than ``1 + margin`` seconds after the one that was as many
calls ago as the rate. A call that started late is written down as such, and one that took longer than usual is taken
for one that arrived late: so what is counted is what the other side sees, and no reserved moment is ever given up. What
is spared pays for the rest of what happens between the start here and the arrival there.

A call that comes late holds back the one that is as many calls after it as the rate, so what is late on the average is
lost: 10 ms are a hundredth of the rate. So nothing stands between the moment and the call: whether the account was
closed meanwhile is asked shortly before, and what is to be written down is written when the answer is there.

Classes differ in how many calls may be reserved ahead of theirs: an interactive call goes as far as it is patient, a
webhook waits for one, a bulk one for none. So a person waits for two calls, and for what the count of the last second
holds back: a sixth of a second at most, however large the import beside it. That would starve the others while people
keep all moments for themselves; so a class that got nothing for five calls (webhook) or ten (bulk) may reserve as far
ahead as a person. In a process one thread of such a class asks at a time; the others would only be told the same.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import QuerySet

from customers.integrations import Integration, RateLimited
from customers.models import Priority, SyncAccount
from dbresilience.prepared import prepared_rows

# Of the rate: what is not spent.
_SPARED: Final = 0.02
# Of a second: how much closer together calls may arrive than they began. Less than what is spared, so that as much
# lateness as the difference costs nothing.
_MARGIN: Final = 0.015
# Seconds whose moments are kept when nobody wants them: so long may a machine stand still and lose nothing.
_KEPT: Final = 0.12
# Starts that are remembered at most; of a higher rate the calls of less than a second are counted.
_COUNTED: Final = 100
# Seconds before its moment at which a call asks whether it may start at all.
_LEAD: Final = 0.02
# Seconds ahead of now, beyond which no moment is reserved: twice the longest patience.
_SANE: Final = 10.0
# Seconds; a start that is later than that is written down.
_LATE: Final = 0.005
# Seconds beyond the usual after which a call is taken for one that arrived late, and by how much at most.
_SLOW: Final = 0.01
_SLOWEST: Final = 0.06
_AHEAD: Final = {Priority.INTERACTIVE: 1_000_000, Priority.WEBHOOK: 1, Priority.BULK: 0}
# After how many calls of others a class that got none may reserve like the first one.
_TURN: Final = {Priority.INTERACTIVE: 0, Priority.WEBHOOK: 5, Priority.BULK: 10}
_SILENCES_TOLERATED: Final = 3
_CLOSED_AT_MOST: Final = 15.0

# The next free moment, reserved unless the account is closed, the wait is too long or too many are ahead of this class.
# The first part takes the row's lock; the clock is read after it. What lies further ahead than anybody's patience was
# reserved by nobody: the clock was put back. ``wait`` is the time until the moment, or until it is worth to ask again:
# when no more are ahead than may be.
TAKE_SQL: Final = """
WITH account AS MATERIALIZED (
    SELECT id, starts, due, failures, error, COALESCE(EXTRACT(EPOCH FROM closed_until), 0)::float8 AS opens,
           COALESCE(EXTRACT(EPOCH FROM CASE %(priority)s WHEN 1 THEN webhook_at ELSE bulk_at END), 0)::float8 AS turn_at
      FROM customers_syncaccount
     WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
       FOR NO KEY UPDATE),
clock AS MATERIALIZED (SELECT *, EXTRACT(EPOCH FROM clock_timestamp())::float8 AS now FROM account),
sane AS MATERIALIZED (
    SELECT id, failures, error, opens, turn_at, now, CASE WHEN due < now + %(sane)s THEN due ELSE 0 END AS due,
           ARRAY(SELECT one FROM unnest(starts) one WHERE one < now + %(sane)s ORDER BY one DESC) AS starts
      FROM clock),
place AS MATERIALIZED (
    SELECT sane.*, GREATEST(now, due - %(kept)s, starts[%(counted)s] + %(window)s) AS moment,
           ARRAY(SELECT one FROM unnest(starts) one WHERE one > now ORDER BY one DESC) AS ahead,
           CASE WHEN turn_at < now - %(turn)s THEN 1000000 ELSE %(ahead)s END AS most
      FROM sane),
asked AS MATERIALIZED (
    SELECT place.*, opens <= now AND moment - now <= %(patience)s AND cardinality(ahead) <= most AS taken FROM place),
reserved AS (
    UPDATE customers_syncaccount AS s
       SET starts = ARRAY(SELECT one FROM unnest(asked.starts || asked.moment) one ORDER BY one DESC LIMIT %(counted)s),
           due = GREATEST(asked.due, asked.moment) + %(apart)s,
           webhook_at = CASE WHEN %(priority)s = 1 THEN clock_timestamp() ELSE webhook_at END,
           bulk_at = CASE WHEN %(priority)s = 2 THEN clock_timestamp() ELSE bulk_at END
      FROM asked WHERE s.id = asked.id AND asked.taken)
SELECT taken, moment,
       CASE WHEN opens > now THEN opens - now
            WHEN taken OR cardinality(ahead) <= most THEN moment - now
            ELSE ahead[most + 1] - now END AS wait,
       opens > now AS closed, error, failures
  FROM asked
"""

# A call started, or arrived, later than it had reserved.
LATE_SQL: Final = """
UPDATE customers_syncaccount SET starts = array_replace(starts, %(moment)s::float8, %(later)s::float8)
 WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
"""

# Seconds for which the account stays closed, and why.
LOOK_SQL: Final = """
SELECT GREATEST(0, EXTRACT(EPOCH FROM closed_until - clock_timestamp()))::float8, error
  FROM customers_syncaccount
 WHERE integration = %(integration)s AND account = %(account)s AND livemode = %(livemode)s
"""

# Closing never shortens a closing that is in force.
CLOSE_SQL: Final = """
UPDATE customers_syncaccount
   SET closed_until = GREATEST(closed_until, clock_timestamp() + make_interval(secs =>
           CASE WHEN closed_until > clock_timestamp() - interval '2 seconds' THEN %(again)s ELSE %(seconds)s END)),
       error = %(error)s
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

# Of each account and class the thread that asks.
_askers: defaultdict[tuple[Any, ...], threading.Lock] = defaultdict(threading.Lock)
# Of each account how long calls of this process take, in seconds, on the average of the last ones.
_usual: dict[tuple[Any, ...], float] = {}
# A thread that held one is not there in a child.
os.register_at_fork(after_in_child=_askers.clear)


class NoToken(RateLimited):
    """Our own limit: the call was not made."""


class Turn(NamedTuple):
    """A call that may start.

    Attributes:
        moment: which was reserved, in seconds since 1970 by the database's clock.
        late: seconds after it.
    """

    moment: float
    late: float


class Gate:
    """The rate and the breaker of one integration's account.

    Args:
        integration: whose ``account``, ``livemode`` and ``rate`` count.
    """

    def __init__(self, integration: Integration) -> None:
        rate = integration.rate or 1e9
        self._apart = (1 + _SPARED) / rate
        counted = min(_COUNTED, max(1, int(rate)))
        self._key: dict[str, Any] = {
            "integration": integration.name,
            "account": integration.account,
            "livemode": integration.livemode,
        }
        self._place = tuple(self._key.values())
        self._parameters: dict[str, Any] = {
            **self._key,
            "apart": self._apart,
            "kept": _KEPT,
            "counted": counted,
            "sane": _SANE,
            "window": (1 + _MARGIN) * counted / rate,
        }
        self._failures = 0

    def take(self, priority: int, *, patience: float) -> Turn:
        """Take a moment in which a call may start, and wait for it if need be.

        Args:
            priority: class of the work.
            patience: seconds to wait at most; when the wait would be longer, nothing is waited for.

        Raises:
            NoToken: none can be had in time, or the account is closed; ``retry_after`` says when to come back.
        """
        ends = time.monotonic() + patience
        with self._asking(Priority(priority), patience):
            moment, wait = self._reserved(Priority(priority), ends)
        return self._awaited(moment, wait)

    def closed_for(self) -> float:
        """Seconds for which no call may start; 0 when calls may."""
        row = self._row(LOOK_SQL, self._key)
        return float(row[0] or 0.0) if row else 0.0

    def answered(self) -> None:
        """The integration gave an answer, whatever it was: the run of silences is over."""
        if self._failures:
            self._account().update(failures=0, closed_until=None, error="")
            self._failures = 0

    def ended(self, turn: Turn, seconds: float | None) -> None:
        """A call has ended; write down when it came, if that was not when it was expected.

        Args:
            turn: as ``take`` said.
            seconds: how long it took; None when that says nothing.
        """
        late = turn.late if turn.late > _LATE else 0.0
        if seconds is not None:
            usual = _usual.get(self._place, seconds)
            _usual[self._place] = usual + (seconds - usual) / 10
            if seconds > usual + _SLOW:
                late += min(seconds - usual, _SLOWEST)
        if late:
            with connection.cursor() as cursor:
                cursor.execute(LATE_SQL, {**self._key, "moment": turn.moment, "later": turn.moment + late})

    def silent(self, error: str) -> None:
        """The integration gave no answer."""
        self._failures += 1
        parameters: dict[str, Any] = {"error": error, "tolerated": _SILENCES_TOLERATED, "longest": _CLOSED_AT_MOST}
        with connection.cursor() as cursor:
            cursor.execute(SILENCE_SQL, {**self._key, **parameters})

    def close(self, seconds: float, error: str, *, again: float | None = None) -> None:
        """Let nothing through for a while: the integration asked for it, or no call can succeed.

        Args:
            seconds: how long.
            error: why.
            again: how long if it was closed less than two seconds ago; None: as long as otherwise.
        """
        values: dict[str, Any] = {"seconds": seconds, "error": error, "again": seconds if again is None else again}
        with connection.cursor() as cursor:
            cursor.execute(CLOSE_SQL, {**self._key, **values})

    @contextmanager
    def _asking(self, priority: Priority, patience: float) -> Iterator[None]:
        """Be the one of this process that asks for a class that is not the first one."""
        if priority is Priority.INTERACTIVE:
            yield
            return
        lock = _askers[*self._place, priority]
        if not lock.acquire(timeout=patience):
            raise NoToken(code="no_token", retry_after=self._apart)
        try:
            yield
        finally:
            lock.release()

    def _reserved(self, priority: Priority, ends: float) -> tuple[float, float]:
        """The moment that was reserved, and the seconds until then."""
        wanted: dict[str, Any] = {
            **self._parameters,
            "priority": int(priority),
            "turn": _TURN[priority] * self._apart,
            "ahead": _AHEAD[priority],
        }
        while True:
            row = self._row(TAKE_SQL, {**wanted, "patience": max(0.0, ends - time.monotonic())})
            if row is None:
                self._open_account()
                continue
            taken, moment, wait, closed, error, self._failures = row
            if taken:
                return moment, wait
            if closed or time.monotonic() + wait > ends:
                code = "closed" if closed else "no_token"
                raise NoToken(error if closed else "", code=code, retry_after=max(wait, 0.001))
            # Too many are ahead of this class now.
            time.sleep(wait)

    def _awaited(self, moment: float, wait: float) -> Turn:
        """Sleep until the reserved moment.

        Raises:
            NoToken: the account was closed meanwhile.
        """
        begins = time.monotonic() + wait
        if wait > _LEAD:
            time.sleep(wait - _LEAD)
            row = self._row(LOOK_SQL, self._key)
            if row is not None and row[0]:
                raise NoToken(row[1], code="closed", retry_after=row[0])
        time.sleep(max(0.0, begins - time.monotonic()))
        return Turn(moment, time.monotonic() - begins)

    def _row(self, sql: str, parameters: dict[str, Any]) -> Any:
        rows = prepared_rows(sql, parameters)
        return rows[0] if rows else None

    def _account(self) -> QuerySet[SyncAccount]:
        return SyncAccount.objects.filter(**self._key)

    def _open_account(self) -> None:
        # Two workers may both see no row; the unique constraint lets one insert and the other go on.
        SyncAccount.objects.bulk_create([SyncAccount(**self._key)], ignore_conflicts=True)
