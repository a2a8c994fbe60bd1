"""Failures: what an error means, and the rows that it leaves behind."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django.db import connection

from dbresilience.error_texts import error_text, traceback_text
from dbresilience.sqlstate import is_connection_loss, sqlstate_of
from outbox.errors import DeliveryError, ErrorClass
from outbox.events import Event
from outbox.subscribers import Failure

MESSAGE_LENGTH: Final = 1_000
TRACEBACK_LENGTH: Final = 8_000
HALTING: Final = frozenset({ErrorClass.OUTAGE, ErrorClass.CONFIGURATION})

# The database is in trouble, and no event is to blame: contention, lost connection, shutdown, no resources, lock
# not available.
_TROUBLE_CLASSES: Final = ("40", "08", "57", "53")
_LOCK_NOT_AVAILABLE: Final = "55P03"
_VARYING: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\w*\d\w*\b|'[^']*'|\"[^\"]*\"", re.IGNORECASE)

# One statement for a first failure and for a failed retry: the delivery, its attempt, and the detour of the aggregate.
# The moment of the next attempt is the database's clock plus a wait with full jitter; without a wait it is dead.
# ``added`` is 0 for an attempt that was counted before it was made. One that was not, on a delivery that is open
# already, is the first of a new round: a person sent the aggregate back. A dead delivery that its aggregate passes
# leaves a detour that is due at once, at the event after it. A detour that a lane finds was made by a person who
# sent the aggregate back: it stays where it is. ``passed`` ones leave none (see ``outbox.passing``).
# The rows come as one document: a text array is escaped piece by piece in Python, which for envelopes took longer than
# the database took to write them.
RECORD_SQL: Final = """
WITH given AS MATERIALIZED (
  SELECT *, clock_timestamp() + wait * interval '1 second' AS due,
         CASE WHEN wait IS NULL THEN 'dead' ELSE 'retrying' END AS state, wait IS NULL AND passes AS goes_on
    FROM json_to_recordset(%(rows)s::json)
      AS g (event_id bigint, position bigint, lane smallint, topic text, type text, aggregate_type text,
            aggregate_id text, sequence bigint, envelope jsonb, added int, wait float8, error_class text, code text,
            message text, traceback text, fingerprint text, passes boolean, passed boolean, seconds float8,
            response text)
), written AS (
  INSERT INTO outbox_delivery AS d
        (subscription_id, event_id, position, lane, topic, type, aggregate_type, aggregate_id, sequence, envelope,
         state, attempts, next_attempt_at, error_class, code, message, traceback, fingerprint)
  SELECT %(name)s, event_id, position, lane, topic, type, aggregate_type, aggregate_id, sequence, envelope,
         state, added, due, error_class, code, message, traceback, fingerprint FROM given
  ON CONFLICT (event_id, subscription_id) WHERE state IN ('retrying', 'dead') DO UPDATE
     SET state = excluded.state, attempts = d.attempts + excluded.attempts,
         attempts_before = CASE WHEN excluded.attempts = 0 THEN d.attempts_before ELSE d.attempts END,
         next_attempt_at = excluded.next_attempt_at,
         error_class = excluded.error_class, code = excluded.code, message = excluded.message,
         traceback = excluded.traceback, fingerprint = excluded.fingerprint, updated_at = clock_timestamp()
  RETURNING d.event_id, d.attempts
), noted AS (
  INSERT INTO outbox_attempt (subscriber, event_id, number, outcome, error_class, code, message, response, worker,
                              started_at, seconds)
  SELECT %(name)s, g.event_id, w.attempts, 'failed', g.error_class, g.code, g.message, g.response, %(worker)s,
         clock_timestamp() - g.seconds * interval '1 second', g.seconds
    FROM given g JOIN written w ON w.event_id = g.event_id
)
INSERT INTO outbox_detour AS t (subscription_id, lane, aggregate_type, aggregate_id, next_sequence, due, started)
SELECT %(name)s, lane, aggregate_type, aggregate_id, sequence + goes_on::int,
       CASE WHEN goes_on THEN clock_timestamp() ELSE due END, false FROM given WHERE NOT passed
ON CONFLICT (aggregate_type, aggregate_id, subscription_id) DO UPDATE
   SET next_sequence = CASE WHEN %(onwards)s THEN excluded.next_sequence
                            ELSE least(t.next_sequence, excluded.next_sequence) END,
       due = CASE WHEN %(onwards)s OR excluded.next_sequence <= t.next_sequence THEN excluded.due ELSE t.due END,
       started = false
"""
SUCCEEDED_SQL: Final = """
INSERT INTO outbox_attempt (subscriber, event_id, number, outcome, error_class, code, message, response, worker,
                            started_at, seconds)
SELECT %(name)s, event_id, number, 'delivered', '', '', '', response, %(worker)s,
       clock_timestamp() - ago * interval '1 second', seconds
  FROM unnest(%(event_id)s::bigint[], %(number)s::int[], %(response)s::text[], %(ago)s::float8[], %(seconds)s::float8[])
    AS g (event_id, number, response, ago, seconds)
"""


@dataclass(frozen=True, slots=True)
class Handling:
    """How the failures of a subscriber are handled, and by whom.

    Attributes:
        name: of the subscriber.
        ladder: upper bounds of the waits before each retry.
        worker: name of the worker, for the timeline.
        goes_on: by topic, whether an aggregate goes on after a dead delivery.
    """

    name: str
    ladder: Sequence[float]
    worker: str
    goes_on: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure to be recorded.

    Attributes:
        failure: what failed.
        attempts: attempts of this round of the ladder, this one included.
        counted: whether this one was counted in its delivery before it was made.
        seconds: that the call took.
        passed: whether the batch went on with its aggregate, so that no detour is needed.
    """

    failure: Failure
    attempts: int
    counted: bool = False
    seconds: float = 0.0
    passed: bool = False


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A successful attempt to be kept: of which event, the how manieth, when (monotonic), how long, what was said."""

    event_id: int
    number: int
    ended: float
    seconds: float
    response: str


def is_database_trouble(exc: BaseException) -> bool:
    """Whether the database itself is in trouble, so that the whole batch is to be tried again and no event blamed."""
    state = sqlstate_of(exc) or ""
    return state[:2] in _TROUBLE_CLASSES or state == _LOCK_NOT_AVAILABLE or is_connection_loss(exc)


def failure_of(event: Event, exc: Exception) -> Failure:
    """The failure that an exception means for an event that was delivered alone."""
    known = isinstance(exc, DeliveryError)
    return Failure(
        event=event,
        error_class=exc.error_class if isinstance(exc, DeliveryError) else ErrorClass.RETRYABLE,
        code=exc.code if isinstance(exc, DeliveryError) else type(exc).__name__,
        message=error_text(exc)[:MESSAGE_LENGTH],
        traceback="" if known else traceback_text(exc)[-TRACEBACK_LENGTH:],
    )


def first_of_each_aggregate(failures: Iterable[Failure]) -> list[Failure]:
    """The first failure of each aggregate; what comes after it waits behind it, failed or not."""
    first: dict[tuple[str, str], Failure] = {}
    for failure in sorted(failures, key=lambda one: one.event.position):
        first.setdefault(failure.event.aggregate, failure)
    return list(first.values())


def those_through(events: Sequence[Event], failures: Iterable[Failure]) -> list[Event]:
    """The events that neither failed nor wait behind one of their aggregate that did."""
    behind = {failure.event.aggregate: failure.event.position for failure in failures}
    return [event for event in events if event.position < behind.get(event.aggregate, event.position + 1)]


def failures_record(handling: Handling, failed: Sequence[Failed], *, onwards: bool = False) -> int:
    """Write the deliveries, attempts and detours of failures, one per aggregate.

    Args:
        handling: of the subscriber.
        failed: the failures.
        onwards: whether they happened on detours, which go on to them.

    Returns:
        How many of them are dead now.
    """
    if not failed:
        return 0
    rows = [_row(one, handling) for one in failed]
    values: dict[str, Any] = {
        "name": handling.name,
        "worker": handling.worker[:100],
        "onwards": onwards,
        "rows": orjson.dumps(rows).decode(),
    }
    with connection.cursor() as cursor:
        cursor.execute(RECORD_SQL, values)
    return sum(row["wait"] is None for row in rows)


def _row(one: Failed, handling: Handling) -> dict[str, Any]:
    failure, event = one.failure, one.failure.event
    return {
        "event_id": event.id,
        "position": event.position,
        "lane": event.lane,
        "topic": event.topic,
        "type": event.type,
        "aggregate_type": event.aggregate_type,
        "aggregate_id": event.aggregate_id,
        "sequence": event.sequence,
        "envelope": orjson.Fragment(envelope_of(event)),
        "added": 0 if one.counted else 1,
        "wait": _wait(one, handling.ladder),
        "error_class": failure.error_class.value,
        "code": plain(failure.code)[:100],
        "message": plain(failure.message)[:MESSAGE_LENGTH],
        "traceback": plain(failure.traceback)[-TRACEBACK_LENGTH:],
        "fingerprint": fingerprint(handling.name, failure),
        "passes": handling.goes_on(event.topic),
        "passed": one.passed,
        "seconds": one.seconds,
        "response": plain(failure.response)[:200],
    }


def successes_record(handling: Handling, succeeded: Sequence[Succeeded]) -> None:
    """Write attempts that went through."""
    if not succeeded:
        return
    now = time.monotonic()
    values: dict[str, Any] = {
        "name": handling.name,
        "worker": handling.worker[:100],
        "event_id": [one.event_id for one in succeeded],
        "number": [one.number for one in succeeded],
        "response": [plain(one.response)[:200] for one in succeeded],
        "ago": [now - one.ended + one.seconds for one in succeeded],
        "seconds": [one.seconds for one in succeeded],
    }
    with connection.cursor() as cursor:
        cursor.execute(SUCCEEDED_SQL, values)


def envelope_of(event: Event) -> str:
    """A copy of the event as JSON text, to be kept with its delivery."""
    fields = event._asdict()
    payload, headers = fields.pop("payload_text"), fields.pop("headers_text")
    fields["uid"], fields["created_at"] = fields.pop("uid_text"), fields.pop("created_text")
    return orjson.dumps({**fields, "payload": orjson.Fragment(payload), "headers": orjson.Fragment(headers)}).decode()


def goes_on_without(one: Failed, handling: Handling) -> bool:
    """Whether this failure is the last of its delivery, and its aggregate goes on to its next event."""
    return _is_last(one, handling.ladder) and handling.goes_on(one.failure.event.topic)


def _is_last(one: Failed, ladder: Sequence[float]) -> bool:
    return one.failure.error_class is ErrorClass.PERMANENT or one.attempts > len(ladder)


def _wait(one: Failed, ladder: Sequence[float]) -> float | None:
    if _is_last(one, ladder):
        return None
    return random.uniform(0.0, ladder[one.attempts - 1])  # noqa: S311 - full jitter, no secret


def fingerprint(destination: str, failure: Failure) -> str:
    """The same for failures of one destination that differ only in ids, numbers and quoted values."""
    return fingerprint_of(destination, failure.error_class, failure.code, failure.message)


def fingerprint_of(destination: str, error_class: str, code: str, message: str) -> str:
    """The same, of what a failure says."""
    kind = "\0".join([destination, error_class, code, _VARYING.sub("?", message)])
    return hashlib.sha256(kind.encode(errors="replace")).hexdigest()[:32]


def plain(text: str) -> str:
    """The text without what PostgreSQL cannot keep."""
    return text.replace("\0", "").encode(errors="replace").decode()
