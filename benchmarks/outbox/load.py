"""What is measured with: events of 512 bytes, published and waiting."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from django.db import connection, transaction

from outbox.events import NewEvent
from outbox.partitions import partitions_make
from outbox.publishing import publish_many

PAYLOAD = {
    "customer_id": "0192f3a1-7c00-7000-8000-000000000001",
    "email": "someone@example.com",
    "name": "Some One",
    "metadata": {"a": "b" * 200, "c": "d" * 190},
}
assert 500 <= len(orjson.dumps(PAYLOAD)) <= 524

TABLES = (
    "outbox_event, outbox_log, outbox_unsequenced, outbox_aggregate, outbox_subscription, outbox_lane,"
    " outbox_watermark, outbox_relay, outbox_delivery, outbox_attempt, outbox_detour, outbox_topic_figure,"
    " outbox_duration_figure, operations_item, operations_operation"
)


# 100 events of an aggregate in a row, and uids that rise as those of publishing do: so both indexes grow at their end,
# and ten million are written in minutes.
OLD_SQL = """
WITH written AS (
  INSERT INTO outbox_event (uid, lane, topic, type, aggregate_type, aggregate_id, sequence, schema_version,
                            payload, headers, origin, correlation_id, causation_id, traceparent, created_at)
  SELECT ('0192f3a1-7c00-7000-8000-' || lpad(to_hex(g), 12, '0'))::uuid, g / 100 %% 64, 'customers',
         'customer.updated', 'old', lpad((g / 100)::text, 9, '0'), g %% 100 + 1, 1, %s::json, '{}'::json,
         '', '', '', '', clock_timestamp()
    FROM generate_series(%s, %s) AS g RETURNING id, lane
)
INSERT INTO outbox_log (event_id, lane) SELECT id, lane FROM written ORDER BY id
"""


def keys(kind: str, count: int) -> list[str]:
    """``count`` aggregate ids: 1,000 ``uniform`` ones or 20 ``hot`` ones."""
    dice = random.Random(7)
    return [f"c{dice.randrange({'uniform': 1000, 'hot': 20}[kind])}" for _ in range(count)]


def forget_all() -> None:
    """Empty tables, as after the migration."""
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {TABLES} CASCADE")


def fill(aggregates: Sequence[str]) -> None:
    """Publish one event for each, and let the database settle."""
    publish_all(aggregates)
    settle()


def publish_all(aggregates: Sequence[str]) -> None:
    """Publish one event for each."""
    for start in range(0, len(aggregates), 5_000):
        with transaction.atomic():
            publish_many(new(aggregate) for aggregate in aggregates[start : start + 5_000])


def fill_old(count: int) -> None:
    """Events that were sequenced long ago, written in bulk, a million at a time."""
    payload = orjson.dumps(PAYLOAD).decode()
    for first in range(1, count + 1, 1_000_000):
        partitions_make(connection)
        with connection.cursor() as cursor:
            cursor.execute(OLD_SQL, [payload, first, min(count, first + 999_999)])
    settle()


def settle() -> None:
    """What autovacuum and the checkpointer would do in the middle of a run."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE outbox_event, outbox_log, outbox_unsequenced, outbox_aggregate, outbox_lane")
        cursor.execute("CHECKPOINT")


def new(aggregate: str, payload: Mapping[str, Any] = PAYLOAD) -> NewEvent:
    return NewEvent(
        topic="customers",
        type="customer.updated",
        aggregate_type="customer",
        aggregate_id=aggregate,
        payload=payload,
        origin="api",
    )
