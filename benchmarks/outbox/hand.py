"""The limit: a loop by hand, psycopg and confluent-kafka on the same tables, without leases, failures or the like."""

from __future__ import annotations

import os

import psycopg
from confluent_kafka import Producer

from outbox.sequencing import BATCH, MOVE_SQL

READ_SQL = """
SELECT l.lane, l.position, e.uid, e.aggregate_id, e.sequence, e.type, e.topic, e.payload::text, e.created_at
  FROM unnest(%s::smallint[], %s::bigint[]) AS k (lane, after)
 CROSS JOIN LATERAL (SELECT * FROM outbox_log WHERE lane = k.lane AND position > k.after
                      ORDER BY position LIMIT 100) AS l
  JOIN outbox_event e ON e.id = l.event_id
"""


def drain() -> int:
    """Sequence all, then bring all to Kafka."""
    producer = Producer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 500_000,
        }
    )
    errors: list[object] = []

    def report(error: object, _message: object) -> None:
        if error:
            errors.append(error)

    done = 0
    cursors = dict.fromkeys(range(64), 0)
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        session.execute("SET jit = off")
        while True:
            with session.transaction():
                session.execute("SELECT pg_advisory_xact_lock(1)")
                row = session.execute(MOVE_SQL, {"floor": 0, "batch": BATCH}).fetchone()
            rows = session.execute(READ_SQL, [list(cursors), list(cursors.values())]).fetchall()
            if not rows and row is not None and row[0] == 0:
                return done
            for lane, position, uid, aggregate, sequence, kind, topic, payload, created in rows:
                producer.produce(
                    f"hand.{topic}",
                    payload.encode(),
                    aggregate.encode(),
                    headers=[
                        ("ce_specversion", "1.0"),
                        ("ce_id", str(uid)),
                        ("ce_source", "/zenskar"),
                        ("ce_type", kind),
                        ("ce_time", created.isoformat()),
                        ("ce_subject", aggregate),
                        ("content-type", "application/json"),
                        ("sequence", str(sequence)),
                    ],
                    on_delivery=report,
                )
                cursors[lane] = max(cursors[lane], position)
            producer.flush()
            assert not errors
            session.execute(
                "UPDATE outbox_lane l SET cursor = v.cursor FROM unnest(%s::smallint[], %s::bigint[]) v (lane, cursor)"
                " WHERE l.subscription_id = 'kafka' AND l.lane = v.lane AND l.cursor <> v.cursor",
                [list(cursors), list(cursors.values())],
            )
            done += len(rows)
