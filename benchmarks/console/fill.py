"""Rows for every list of the console, written by SQL: what there is after a while."""

from __future__ import annotations

from typing import Final

from django.db import connection

from outbox.subscriptions import subscriptions_ensure

# One statement for each table, in an order that foreign keys allow; %(rows)s rows each. A few in a hundred are not as
# they should be: that is what people filter by.
FILL_SQL: Final[dict[str, str]] = {
    "customers_customer": """
INSERT INTO customers_customer (id, name, email, phone, address, metadata, version, created_at, updated_at, deleted_at)
SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'Customer ' || n, 'c' || n || '@example.com',
       '+49 228 ' || n, '{"city": "Bonn", "country": "DE"}', jsonb_build_object('plan', 'gold', 'number', n::text), 1,
       t.at, t.at, CASE WHEN n %% 10 = 0 THEN t.at END
  FROM generate_series(1, %(rows)s) n, LATERAL (SELECT now() - make_interval(secs => %(rows)s - n) AS at) t
""",
    "customers_syncstate": """
INSERT INTO customers_syncstate (customer_id, integration, account, livemode, remote_id, status, base, attempts,
                                 last_error_class, last_error_code, last_error_message)
SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'stripe', '', false, 'cus_' || n,
       CASE n %% 100 WHEN 1 THEN 'failed' WHEN 2 THEN 'conflict' WHEN 3 THEN 'retrying' WHEN 4 THEN 'pending'
                    WHEN 5 THEN 'orphaned' WHEN 6 THEN 'deleted' ELSE 'in_sync' END,
       jsonb_build_object('name', 'Customer ' || n, 'email', 'c' || n || '@example.com'), 0,
       CASE n %% 100 WHEN 1 THEN 'permanent' ELSE '' END, CASE n %% 100 WHEN 1 THEN 'parameter_invalid' ELSE '' END, ''
  FROM generate_series(1, %(rows)s) n
""",
    "customers_syncrequest": """
INSERT INTO customers_syncrequest (state_id, uid, generation, method, body, fields, first_sent_at, last_sent_at, sends,
                                   resolved_at, outcome, error_code, error_message)
SELECT id, gen_random_uuid(), 1, 'create', '{"name": "Customer"}', '{}', now(), now(), 1,
       CASE WHEN id %% 100 <> 1 THEN now() END, CASE id %% 100 WHEN 1 THEN '' WHEN 2 THEN 'refused'
       WHEN 3 THEN 'adopted' WHEN 4 THEN 'abandoned' ELSE 'succeeded' END, '', ''
  FROM customers_syncstate
""",
    "customers_conflict": """
INSERT INTO customers_conflict (state_id, kind, field, base, ours, theirs, detail, status, resolution, resolved_at)
SELECT id, 'field', 'name', '"a"', '"b"', '"c"', '', CASE WHEN id %% 50 = 2 THEN 'open' ELSE 'resolved' END, '',
       CASE WHEN id %% 50 <> 2 THEN now() END
  FROM customers_syncstate
""",
    "customers_webhook": """
INSERT INTO customers_webhook (integration, event_id, type, account, livemode, remote_id, payload, received_at,
                               processed_at, outcome, reason)
SELECT 'stripe', 'evt_' || n, 'customer.updated', '', false, 'cus_' || n,
       jsonb_build_object('id', 'evt_' || n, 'data', repeat('x', 800)), now(),
       CASE WHEN n %% 100 <> 1 THEN now() END,
       CASE n %% 100 WHEN 1 THEN 'pending' WHEN 2 THEN 'ignored' ELSE 'poked' END, ''
  FROM generate_series(1, %(rows)s) n
""",
    "outbox_aggregate": """
INSERT INTO outbox_aggregate (aggregate_type, aggregate_id, sequence)
SELECT 'customer', '01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 1 FROM generate_series(1, %(rows)s) n
""",
    "outbox_event": """
INSERT INTO outbox_event (uid, created_at, sequence, schema_version, lane, topic, type, aggregate_type, aggregate_id,
                          origin, correlation_id, causation_id, traceparent, headers, payload)
SELECT gen_random_uuid(), now() - make_interval(secs => %(rows)s - n), 1, 1, n %% 64, 'customers', 'customer.created',
       'customer', '01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'api', 'correlation-' || n, '', '',
       '{"priority": "interactive"}', json_build_object('customer_id', n, 'name', 'Customer ' || n)
  FROM generate_series(1, %(rows)s) n
""",
    "outbox_log": "INSERT INTO outbox_log (event_id, lane) SELECT id, lane FROM outbox_event ORDER BY id",
    "outbox_lane": "UPDATE outbox_lane SET cursor = (SELECT max(position) FROM outbox_log)",
    "outbox_watermark": """
INSERT INTO outbox_watermark (subscription_id, position, passed_at)
SELECT s.name, n * 10, now() FROM outbox_subscription s, generate_series(1, %(rows)s / 10) n
""",
    "outbox_delivery": """
INSERT INTO outbox_delivery (subscription_id, event_id, position, lane, topic, type, aggregate_type, aggregate_id,
                             sequence, envelope, state, attempts, error_class, code, message, traceback, fingerprint,
                             resolved_at, resolution)
SELECT (SELECT min(name) FROM outbox_subscription), e.id, l.position, e.lane, e.topic, e.type, e.aggregate_type,
       e.aggregate_id, e.sequence, to_jsonb(e.payload), CASE e.id %% 100 WHEN 1 THEN 'dead' WHEN 2 THEN 'retrying'
       ELSE 'resolved' END, 6, 'retryable', 'NO_ACK', 'the broker did not acknowledge', repeat('line of a trace ', 40),
       md5((e.id %% 20)::text), CASE WHEN e.id %% 100 NOT IN (1, 2) THEN now() END,
       CASE WHEN e.id %% 100 NOT IN (1, 2) THEN 'delivered' ELSE '' END
  FROM outbox_event e JOIN outbox_log l ON l.event_id = e.id
""",
    "outbox_attempt": """
INSERT INTO outbox_attempt (subscriber, event_id, number, outcome, error_class, code, message, response, worker,
                            started_at, seconds)
SELECT subscription_id, event_id, 1, 'failed', error_class, code, message, '', '', now(), 0.1 FROM outbox_delivery
""",
    "outbox_detour": """
INSERT INTO outbox_detour (subscription_id, lane, aggregate_type, aggregate_id, next_sequence)
SELECT subscription_id, lane, aggregate_type, aggregate_id, sequence FROM outbox_delivery WHERE state <> 'resolved'
""",
    "operations_apikey": """
INSERT INTO operations_apikey (name, prefix, digest, scopes, created_at, expires_at, revoked_at, last_used_at)
SELECT 'shop ' || n, 'k' || lpad(n::text, 11, '0'), md5(n::text) || md5(n::text), ARRAY['customers:read'], now(),
       CASE WHEN n %% 100 = 1 THEN now() - interval '1 day' ELSE now() + interval '300 days' END,
       CASE WHEN n %% 100 = 2 THEN now() END, now()
  FROM generate_series(1, %(rows)s) n
""",
    "operations_auditentry": """
INSERT INTO operations_auditentry (at, actor, action, target, detail, correlation_id)
SELECT now(), 'key:k' || n %% 5000, 'customer.created', 'customer:' || n, '{"fields": ["name"]}', 'correlation-' || n
  FROM generate_series(1, %(rows)s) n
""",
}


def fill(rows: int) -> None:
    """Write ``rows`` rows into each table, and let the planner know of them."""
    subscriptions_ensure()
    for statement in FILL_SQL.values():
        with connection.cursor() as cursor:
            cursor.execute(statement, {"rows": rows})
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
