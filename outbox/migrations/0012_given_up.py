"""What people skipped or replaced is told apart from what went through."""

from importlib import import_module

from django.db import migrations, models

# As before, with two more words for what a person decided: nothing waits there, and nothing was delivered.
EVENTS = """
CREATE OR REPLACE VIEW outbox_events AS
SELECT e.id, e.uid, e.aggregate_id, e.aggregate_type, e.type AS event_type, e.payload AS event_data, e.correlation_id,
       e.topic, e.created_at, w.status, w.status IN ('skipped', 'replaced', 'processed') AS is_processed,
       CASE WHEN w.status = 'processed' THEN w.processed_at END AS processed_at,
       w.retry_count, w.max_retries, w.next_retry_at, w.error_message
  FROM outbox_event e
 CROSS JOIN LATERAL (
   SELECT COALESCE((ARRAY['dead', 'retrying', 'blocked', 'pending', 'skipped', 'replaced', 'processed'])[min(s.rank)],
                   'processed') AS status,
          max(s.processed_at) AS processed_at, COALESCE(max(s.retries), 0) AS retry_count,
          COALESCE(max(s.max_retries), 0) AS max_retries, min(s.next_attempt_at) AS next_retry_at,
          (array_agg(s.message ORDER BY s.rank) FILTER (WHERE s.message <> ''))[1] AS error_message
     FROM (
       SELECT CASE WHEN d.state = 'dead' THEN 1 WHEN d.state = 'retrying' THEN 2
                   WHEN l.position IS NULL OR l.position > n.cursor THEN 4
                   WHEN t.id IS NOT NULL AND e.sequence >= t.next_sequence THEN 3
                   WHEN d.resolution = 'skipped' THEN 5 WHEN d.resolution = 'replaced' THEN 6 ELSE 7 END AS rank,
              greatest(d.attempts - 1, 0) AS retries, p.max_retries,
              CASE WHEN d.state = 'retrying' THEN d.next_attempt_at END AS next_attempt_at, d.message,
              COALESCE(d.resolved_at, (SELECT w.passed_at FROM outbox_watermark w
                                        WHERE w.subscription_id = p.name AND w.position >= l.position
                                        ORDER BY w.position LIMIT 1)) AS processed_at
         FROM outbox_subscription p
         JOIN outbox_lane n ON n.subscription_id = p.name AND n.lane = e.lane
         LEFT JOIN LATERAL (SELECT position FROM outbox_log WHERE event_id = e.id LIMIT 1) l ON true
         LEFT JOIN LATERAL (SELECT * FROM outbox_delivery d WHERE d.event_id = e.id AND d.subscription_id = p.name
                             ORDER BY d.id DESC LIMIT 1) d ON true
         LEFT JOIN outbox_detour t ON t.subscription_id = p.name AND t.aggregate_type = e.aggregate_type
              AND t.aggregate_id = e.aggregate_id
        WHERE p.active AND (p.topics IS NULL OR e.topic = ANY (p.topics))
     ) s
 ) w
"""
BEFORE = import_module("outbox.migrations.0002_views").EVENTS


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0011_erasure_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="topicfigure",
            name="skipped",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="topicfigure",
            name="replaced",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.RunSQL(EVENTS, BEFORE.replace("CREATE VIEW", "CREATE OR REPLACE VIEW")),
    ]
