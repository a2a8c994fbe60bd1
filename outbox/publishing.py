"""Publishing: writes events to the log in the caller's transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson
import structlog
import uuid_utils
from django.db import connection, transaction

from operations.correlation import correlation_id
from outbox.errors import InvalidEvent, PublishOutsideTransaction
from outbox.events import NewEvent
from outbox.lanes import lane_of
from outbox.wakeup import wake

log = structlog.get_logger(__name__)

# The three narrow writes of one event or of many, in one round trip. Their order is what the log's order stands on,
# and PostgreSQL keeps it because each part reads the rows that the part before it returned:
#   1. bumped: takes the row lock of each aggregate, in the sorted order of the arrays, so that two calls that share
#      aggregates queue and do not deadlock. It also gives the transaction its id, before any event id is drawn: the
#      sequencer's floor needs that.
#   2. written: draws the event ids, after the lock, in the order of the call (the sort runs below the nextval). So
#      within one aggregate the order of ids is the order of commits.
#   3. unsequenced: says that the event has no place in the log yet.
PUBLISH_SQL: Final = """
WITH bumped AS (
  INSERT INTO outbox_aggregate AS a (aggregate_type, aggregate_id, sequence)
  SELECT * FROM unnest(%(aggregate_types)s::text[], %(aggregate_ids)s::text[], %(counts)s::bigint[])
  ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET sequence = a.sequence + excluded.sequence
  RETURNING a.aggregate_type, a.aggregate_id, a.sequence
), written AS (
  INSERT INTO outbox_event (uid, lane, topic, type, aggregate_type, aggregate_id, sequence, schema_version, payload,
                            headers, origin, correlation_id, causation_id, traceparent, created_at)
  SELECT n.uid, n.lane, n.topic, n.type, b.aggregate_type, b.aggregate_id, b.sequence - n.later, n.schema_version,
         n.payload::json, n.headers::json, n.origin, n.correlation_id, n.causation_id, n.traceparent,
         clock_timestamp()
    FROM unnest(%(uid)s::uuid[], %(lane)s::smallint[], %(topic)s::text[], %(type)s::text[],
                %(aggregate_type)s::text[], %(aggregate_id)s::text[], %(later)s::int[], %(schema_version)s::int[],
                %(payload)s::text[], %(headers)s::text[], %(origin)s::text[], %(correlation_id)s::text[],
                %(causation_id)s::text[], %(traceparent)s::text[])
         WITH ORDINALITY AS n (uid, lane, topic, type, aggregate_type, aggregate_id, later, schema_version, payload,
                               headers, origin, correlation_id, causation_id, traceparent, nth)
    JOIN bumped b ON b.aggregate_type = n.aggregate_type AND b.aggregate_id = n.aggregate_id
   ORDER BY n.nth
  RETURNING id, lane
)
INSERT INTO outbox_unsequenced (id, lane) SELECT id, lane FROM written RETURNING id
"""


def publish(event: NewEvent) -> int:
    """Publish one event in the current transaction; call it last, after the rows that it tells of.

    Returns:
        The event's id, for ``wait_for``.

    Raises:
        PublishOutsideTransaction: no transaction is open.
        InvalidEvent: the payload is no JSON object, or holds what PostgreSQL cannot keep.
    """
    return publish_many([event])[0]


def publish_many(events: Iterable[NewEvent]) -> list[int]:
    """Publish events in the current transaction, in their order, in one statement.

    Returns:
        The events' ids, in the order of ``events``.

    Raises:
        PublishOutsideTransaction: no transaction is open.
        InvalidEvent: a payload is no JSON object, or holds what PostgreSQL cannot keep.
    """
    if not connection.in_atomic_block:
        raise PublishOutsideTransaction(PublishOutsideTransaction.__doc__)
    batch = list(events)
    if not batch:
        return []
    with connection.cursor() as cursor:
        cursor.execute(PUBLISH_SQL, _arrays(batch))
        # Ids are drawn in the order of the call, so sorting restores it whatever order the rows come back in.
        ids = sorted(row[0] for row in cursor.fetchall())
    transaction.on_commit(_wake_log)
    log.debug("events_published", events=len(ids), first_id=ids[0], type=batch[0].type)
    return ids


def _wake_log() -> None:
    wake("log")


def _arrays(batch: list[NewEvent]) -> dict[str, list[Any]]:
    counts = Counter((event.aggregate_type, event.aggregate_id) for event in batch)
    aggregates = sorted(counts)
    remaining = dict(counts)
    later = []
    for event in batch:
        key = (event.aggregate_type, event.aggregate_id)
        remaining[key] -= 1
        later.append(remaining[key])
    context = structlog.contextvars.get_contextvars()
    correlation, trace = correlation_id(), str(context.get("traceparent", ""))
    return {
        "aggregate_types": [aggregate[0] for aggregate in aggregates],
        "aggregate_ids": [aggregate[1] for aggregate in aggregates],
        "counts": [counts[aggregate] for aggregate in aggregates],
        "uid": [str(uuid_utils.uuid7()) for _ in batch],
        "lane": [lane_of(event.aggregate_type, event.aggregate_id) for event in batch],
        "topic": [event.topic for event in batch],
        "type": [event.type for event in batch],
        "aggregate_type": [event.aggregate_type for event in batch],
        "aggregate_id": [event.aggregate_id for event in batch],
        "later": later,
        "schema_version": [event.schema_version for event in batch],
        "payload": [_json(event.payload) for event in batch],
        "headers": [_json(event.headers) for event in batch],
        "origin": [event.origin for event in batch],
        "correlation_id": [correlation if e.correlation_id is None else e.correlation_id for e in batch],
        "causation_id": [event.causation_id or "" for event in batch],
        "traceparent": [trace if event.traceparent is None else event.traceparent for event in batch],
    }


def _json(value: Mapping[str, Any]) -> str:
    try:
        text = orjson.dumps(value if isinstance(value, dict) else dict(value)).decode()
    except TypeError as exc:
        raise InvalidEvent(f"payload or headers cannot be written as JSON: {exc}") from exc
    if "\\u0000" in text and _holds_nul(orjson.loads(text)):
        raise InvalidEvent("payload or headers hold a NUL character, which PostgreSQL cannot keep")
    return text


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
    return isinstance(value, list) and any(_holds_nul(item) for item in value)
