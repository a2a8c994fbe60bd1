"""Failures: what an error means, and the rows that it leaves behind."""

from __future__ import annotations

import hashlib
import random
import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django.db import connection

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
RECORD_SQL: Final = """
WITH given AS MATERIALIZED (
  SELECT *, clock_timestamp() + wait * interval '1 second' AS due,
         CASE WHEN wait IS NULL THEN 'dead' ELSE 'retrying' END AS state
    FROM unnest(%(event_id)s::bigint[], %(position)s::bigint[], %(lane)s::smallint[], %(topic)s::text[],
                %(type)s::text[], %(aggregate_type)s::text[], %(aggregate_id)s::text[], %(sequence)s::bigint[],
                %(envelope)s::text[], %(attempts)s::int[], %(wait)s::float8[], %(error_class)s::text[],
                %(code)s::text[], %(message)s::text[], %(traceback)s::text[], %(fingerprint)s::text[])
      AS g (event_id, position, lane, topic, type, aggregate_type, aggregate_id, sequence, envelope, attempts, wait,
            error_class, code, message, traceback, fingerprint)
), written AS (
  INSERT INTO outbox_delivery AS d
        (subscription_id, event_id, position, lane, topic, type, aggregate_type, aggregate_id, sequence, envelope,
         state, attempts, next_attempt_at, error_class, code, message, traceback, fingerprint)
  SELECT %(name)s, event_id, position, lane, topic, type, aggregate_type, aggregate_id, sequence, envelope::jsonb,
         state, attempts, due, error_class, code, message, traceback, fingerprint FROM given
  ON CONFLICT (event_id, subscription_id) WHERE state IN ('retrying', 'dead') DO UPDATE
     SET state = excluded.state, attempts = excluded.attempts, next_attempt_at = excluded.next_attempt_at,
         error_class = excluded.error_class, code = excluded.code, message = excluded.message,
         traceback = excluded.traceback, fingerprint = excluded.fingerprint, updated_at = clock_timestamp()
  RETURNING d.id, d.attempts, d.error_class, d.code, d.message
), noted AS (
  INSERT INTO outbox_attempt (delivery_id, number, error_class, code, message)
  SELECT id, attempts, error_class, code, message FROM written
)
INSERT INTO outbox_detour (subscription_id, lane, aggregate_type, aggregate_id, next_sequence, due, started)
SELECT %(name)s, lane, aggregate_type, aggregate_id, sequence, due, false FROM given
ON CONFLICT (aggregate_type, aggregate_id, subscription_id) DO UPDATE
   SET next_sequence = excluded.next_sequence, due = excluded.due, started = false
"""


@dataclass(frozen=True, slots=True)
class Failed:
    """A failure to be recorded, with the number of attempts that this makes."""

    failure: Failure
    attempts: int


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
        message=str(exc)[:MESSAGE_LENGTH],
        traceback="" if known else "".join(traceback.format_exception(exc))[-TRACEBACK_LENGTH:],
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


def failures_record(name: str, ladder: Sequence[float], failed: Sequence[Failed]) -> int:
    """Write the deliveries, attempts and detours of failures, one per aggregate.

    Args:
        name: of the subscriber.
        ladder: upper bounds of the waits before each retry.
        failed: the failures.

    Returns:
        How many of them are dead now.
    """
    if not failed:
        return 0
    waits = [_wait(one, ladder) for one in failed]
    events = [one.failure.event for one in failed]
    values: dict[str, Any] = {
        "name": name,
        "event_id": [event.id for event in events],
        "position": [event.position for event in events],
        "lane": [event.lane for event in events],
        "topic": [event.topic for event in events],
        "type": [event.type for event in events],
        "aggregate_type": [event.aggregate_type for event in events],
        "aggregate_id": [event.aggregate_id for event in events],
        "sequence": [event.sequence for event in events],
        "envelope": [envelope_of(event) for event in events],
        "attempts": [one.attempts for one in failed],
        "wait": waits,
        "error_class": [one.failure.error_class.value for one in failed],
        "code": [_plain(one.failure.code)[:100] for one in failed],
        "message": [_plain(one.failure.message)[:MESSAGE_LENGTH] for one in failed],
        "traceback": [_plain(one.failure.traceback)[-TRACEBACK_LENGTH:] for one in failed],
        "fingerprint": [_fingerprint(name, one.failure) for one in failed],
    }
    with connection.cursor() as cursor:
        cursor.execute(RECORD_SQL, values)
    return waits.count(None)


def envelope_of(event: Event) -> str:
    """A copy of the event as JSON text, to be kept with its delivery."""
    fields = event._asdict()
    payload, headers = fields.pop("payload_text"), fields.pop("headers_text")
    fields["uid"], fields["created_at"] = fields.pop("uid_text"), fields.pop("created_text")
    return orjson.dumps({**fields, "payload": orjson.Fragment(payload), "headers": orjson.Fragment(headers)}).decode()


def _wait(one: Failed, ladder: Sequence[float]) -> float | None:
    if one.failure.error_class is ErrorClass.PERMANENT or one.attempts > len(ladder):
        return None
    return random.uniform(0.0, ladder[one.attempts - 1])  # noqa: S311 - full jitter, no secret


def _fingerprint(name: str, failure: Failure) -> str:
    """The same for failures that differ only in ids, numbers and quoted values."""
    kind = "\0".join([name, failure.event.type, failure.error_class, failure.code, _VARYING.sub("?", failure.message)])
    return hashlib.sha256(kind.encode(errors="replace")).hexdigest()[:32]


def _plain(text: str) -> str:
    return text.replace("\0", "").encode(errors="replace").decode()
