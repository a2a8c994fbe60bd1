"""Erasing what the log and everything around it say about one aggregate, in place.

What happened stays: each event keeps its number, place, type and moment, so that the log still verifies and no
consumer misses one. What it said goes: payloads become what ``redact`` leaves of them, and texts that may quote one
(messages, tracebacks, notes of people) go whole, since nobody can tell what of a person is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django.db import connection

from outbox.models import ParkedMessage

Redact = Callable[[dict[str, Any]], dict[str, Any]]

ERASED: Final = "Erased."
"""What stands where a text was."""

_AT_ONCE: Final = 500
# Headers that say what a message is about, and nothing of what it says.
_KEPT_HEADERS: Final = frozenset(
    {
        "aggregate_type",
        "sequence",
        "schema_version",
        "content-type",
        "origin",
        "priority",
        "correlation_id",
        "causation_id",
        "traceparent",
    }
)
_KEPT_PREFIX: Final = "ce_"

# The triggers that keep attempts and the audit trail append-only let an erasure through, which says so; of an attempt
# it may change the texts alone.
ERASURE_SQL: Final = "SET LOCAL zenskar.erasure = 'on'"

# By the index of the aggregate, so many at a time.
EVENTS_SQL: Final = """
SELECT id, sequence, payload::text FROM outbox_event
 WHERE aggregate_type = %(aggregate_type)s AND aggregate_id = %(aggregate_id)s AND sequence > %(after)s
 ORDER BY sequence LIMIT %(limit)s
"""
EVENTS_REDACT_SQL: Final = """
UPDATE outbox_event e SET payload = n.payload::json
  FROM unnest(%(ids)s::bigint[], %(payloads)s::text[]) AS n (id, payload) WHERE e.id = n.id
"""
# By the partial indexes of what is open and of what is resolved. A delivery may outlive its event.
DELIVERIES_SQL: Final = """
SELECT id, event_id, envelope -> 'payload' FROM outbox_delivery
 WHERE aggregate_type = %(aggregate_type)s AND aggregate_id = %(aggregate_id)s
   AND (state IN ('retrying', 'dead') OR state = 'resolved')
   FOR UPDATE
"""
DELIVERIES_REDACT_SQL: Final = """
UPDATE outbox_delivery d
   SET envelope = jsonb_set(d.envelope, '{payload}', n.payload::jsonb), message = %(erased)s, traceback = '',
       resolved_reason = CASE WHEN resolved_reason = '' THEN '' ELSE %(erased)s END
  FROM unnest(%(ids)s::bigint[], %(payloads)s::text[]) AS n (id, payload) WHERE d.id = n.id
"""
ATTEMPTS_REDACT_SQL: Final = """
UPDATE outbox_attempt SET message = CASE WHEN message = '' THEN '' ELSE %(erased)s END, response = ''
 WHERE event_id = ANY (%(events)s::bigint[]) AND NOT (message IN ('', %(erased)s) AND response = '')
"""
# Of an edit the places stay, and what stood there goes.
REPLACEMENTS_REDACT_SQL: Final = """
UPDATE outbox_replacement
   SET diff = COALESCE((SELECT jsonb_agg(jsonb_build_object('pointer', one -> 'pointer'))
                          FROM jsonb_array_elements(diff) one), '[]'), reason = %(erased)s
 WHERE original_id = ANY (%(events)s::bigint[]) OR event_id = ANY (%(events)s::bigint[])
"""


@dataclass(frozen=True, slots=True)
class ErasedTraces:
    """What an erasure went through.

    Attributes:
        events: ids of the aggregate's events.
        deliveries: ids of its deliveries.
        consumed: ids of its consumed messages.
    """

    events: list[int]
    deliveries: list[int]
    consumed: list[int]


def aggregate_erase(*, aggregate_type: str, aggregate_id: str, redact: Redact) -> ErasedTraces:
    """Redact every event of an aggregate and every copy of one, in the transaction under way; again is harmless.

    Args:
        aggregate_type, aggregate_id: which.
        redact: what is left of a payload; of a redacted one, the same.
    """
    about = {"aggregate_type": aggregate_type, "aggregate_id": aggregate_id}
    with connection.cursor() as cursor:
        cursor.execute(ERASURE_SQL)
        events = _events_redact(cursor, about, redact)
        deliveries, more = _deliveries_redact(cursor, about, redact)
        values: dict[str, Any] = {"events": sorted({*events, *more}), "erased": ERASED}
        cursor.execute(ATTEMPTS_REDACT_SQL, values)
        cursor.execute(REPLACEMENTS_REDACT_SQL, values)
    return ErasedTraces(events, deliveries, _consumed_redact(about, redact))


def _events_redact(cursor: Any, about: dict[str, str], redact: Redact) -> list[int]:
    found: list[int] = []
    after = 0
    while True:
        cursor.execute(EVENTS_SQL, {**about, "after": after, "limit": _AT_ONCE})
        rows = cursor.fetchall()
        changed = {}
        for event_id, after, text in rows:  # noqa: B007 - the last one is where the next page begins
            payload = orjson.loads(text)
            left = redact(payload)
            found.append(event_id)
            if left != payload:
                changed[event_id] = orjson.dumps(left).decode()
        if changed:
            cursor.execute(EVENTS_REDACT_SQL, {"ids": list(changed), "payloads": list(changed.values())})
        if len(rows) < _AT_ONCE:
            return found


def _deliveries_redact(cursor: Any, about: dict[str, str], redact: Redact) -> tuple[list[int], list[int]]:
    cursor.execute(DELIVERIES_SQL, about)
    rows = cursor.fetchall()
    ids = [row[0] for row in rows]
    payloads = [orjson.dumps(redact(_object(row[2]))).decode() for row in rows]
    if ids:
        cursor.execute(DELIVERIES_REDACT_SQL, {"ids": ids, "payloads": payloads, "erased": ERASED})
    return ids, [row[1] for row in rows]


def _consumed_redact(about: dict[str, str], redact: Redact) -> list[int]:
    rows = list(ParkedMessage.objects.filter(**about).select_for_update())
    for row in rows:
        row.value = _value_redacted(row.value, redact)
        row.headers = [one for one in row.headers if _is_kept(str(one[0]))]
        row.message, row.traceback = row.message and ERASED, ""
        row.resolved_reason = row.resolved_reason and ERASED
        row.save(update_fields=["value", "headers", "message", "traceback", "resolved_reason"])
    return [row.pk for row in rows]


def _value_redacted(value: Any, redact: Redact) -> bytes | None:
    """What is left of a message's bytes; of one that cannot be read, nothing."""
    if value is None:
        return None
    try:
        payload = orjson.loads(bytes(value))
    except orjson.JSONDecodeError:
        return None
    return orjson.dumps(redact(payload)) if isinstance(payload, dict) else None


def _is_kept(name: str) -> bool:
    return name in _KEPT_HEADERS or name.startswith(_KEPT_PREFIX)


def _object(value: Any) -> dict[str, Any]:
    found = orjson.loads(value) if isinstance(value, str) else value
    return found if isinstance(found, dict) else {}
