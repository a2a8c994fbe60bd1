import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import outbox.models.fields
from outbox.partitions import partitions_make

# The tables that Django cannot describe: partitioned, with their sequences. CACHE 1, since a session that keeps numbers
# in stock would draw ids out of the order of its locks. Rows come from publishing.py and sequencing.py only.
EVENT = """
CREATE SEQUENCE outbox_event_id_seq AS bigint CACHE 1;
CREATE TABLE outbox_event (
  id bigint NOT NULL DEFAULT nextval('outbox_event_id_seq'),
  uid uuid NOT NULL,
  created_at timestamptz NOT NULL,
  sequence bigint NOT NULL,
  schema_version integer NOT NULL,
  lane smallint NOT NULL CHECK (lane BETWEEN 0 AND 63),
  topic varchar(150) NOT NULL,
  type varchar(100) NOT NULL,
  aggregate_type varchar(100) NOT NULL,
  aggregate_id varchar(255) NOT NULL,
  origin varchar(255) NOT NULL,
  correlation_id varchar(255) NOT NULL,
  causation_id varchar(255) NOT NULL,
  traceparent varchar(255) NOT NULL,
  headers json NOT NULL,
  payload json NOT NULL,
  PRIMARY KEY (id)
) PARTITION BY RANGE (id);
ALTER SEQUENCE outbox_event_id_seq OWNED BY outbox_event.id;
CREATE INDEX outbox_event_aggregate ON outbox_event (aggregate_type, aggregate_id, sequence);
CREATE INDEX outbox_event_uid ON outbox_event (uid);
-- Takes what finds no partition, so that publishing never fails for want of one (see outbox/partitions.py).
CREATE TABLE outbox_event_default PARTITION OF outbox_event DEFAULT;
"""
EVENT_REVERSE = "DROP TABLE outbox_event"

LOG = """
CREATE SEQUENCE outbox_log_position_seq AS bigint CACHE 1;
CREATE TABLE outbox_log (
  position bigint NOT NULL DEFAULT nextval('outbox_log_position_seq'),
  event_id bigint NOT NULL,
  lane smallint NOT NULL,
  PRIMARY KEY (lane, position)
) PARTITION BY RANGE (position);
ALTER SEQUENCE outbox_log_position_seq OWNED BY outbox_log.position;
"""
LOG_REVERSE = "DROP TABLE outbox_log"

# A queue whose rows live milliseconds is vacuumed by the number of the dead, whatever its size. Rows that are updated
# in place again and again get room for it in their page, so that no index changes.
STORAGE = """
ALTER TABLE outbox_unsequenced SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
                                    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0,
                                    autovacuum_analyze_threshold = 1000000);
ALTER TABLE outbox_aggregate SET (fillfactor = 70);
ALTER TABLE outbox_lane SET (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
                             autovacuum_vacuum_cost_delay = 0);
ALTER TABLE outbox_relay SET (fillfactor = 50);
"""


def make_first_partitions(apps, schema_editor):
    partitions_make(schema_editor.connection)


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AggregateSequence",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "aggregate_type", "aggregate_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("aggregate_type", models.CharField(max_length=100)),
                ("aggregate_id", models.CharField(max_length=255)),
                ("sequence", models.BigIntegerField()),
            ],
            options={
                "db_table": "outbox_aggregate",
            },
        ),
        migrations.CreateModel(
            name="Delivery",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("event_id", models.BigIntegerField()),
                ("position", models.BigIntegerField()),
                ("lane", models.SmallIntegerField()),
                ("topic", models.CharField(max_length=150)),
                ("type", models.CharField(max_length=100)),
                ("aggregate_type", models.CharField(max_length=100)),
                ("aggregate_id", models.CharField(max_length=255)),
                ("sequence", models.BigIntegerField()),
                ("envelope", models.JSONField()),
                (
                    "state",
                    models.CharField(
                        choices=[("retrying", "Retrying"), ("dead", "Dead"), ("resolved", "Resolved")], max_length=10
                    ),
                ),
                ("attempts", models.IntegerField()),
                ("next_attempt_at", models.DateTimeField(blank=True, null=True)),
                (
                    "error_class",
                    models.CharField(
                        choices=[
                            ("retryable", "Retryable"),
                            ("permanent", "Permanent"),
                            ("configuration", "Configuration"),
                            ("outage", "Outage"),
                            ("crash", "Crash"),
                        ],
                        max_length=15,
                    ),
                ),
                ("code", models.CharField(max_length=100)),
                ("message", models.TextField()),
                ("traceback", models.TextField(blank=True)),
                ("fingerprint", models.CharField(help_text="The same for failures of the same kind.", max_length=64)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("updated_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name_plural": "deliveries",
                "db_table": "outbox_delivery",
            },
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="LogEntry",
                    fields=[
                        (
                            "pk",
                            models.CompositePrimaryKey(
                                "lane", "position", blank=True, editable=False, primary_key=True, serialize=False
                            ),
                        ),
                        ("lane", models.SmallIntegerField()),
                        ("position", models.BigIntegerField()),
                        ("event_id", models.BigIntegerField()),
                    ],
                    options={
                        "verbose_name_plural": "log entries",
                        "db_table": "outbox_log",
                    },
                ),
            ],
            database_operations=[migrations.RunSQL(LOG, LOG_REVERSE)],
        ),
        migrations.CreateModel(
            name="Subscription",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                (
                    "topics",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=150), help_text="Null: all topics.", null=True, size=None
                    ),
                ),
                ("max_retries", models.IntegerField()),
                (
                    "active",
                    models.BooleanField(db_default=True, default=True, help_text="Listed in OUTBOX_SUBSCRIBERS."),
                ),
                ("paused_at", models.DateTimeField(blank=True, null=True)),
                (
                    "paused_until",
                    models.DateTimeField(blank=True, help_text="Null: until it is resumed by hand.", null=True),
                ),
                ("paused_reason", models.TextField(blank=True, db_default="", default="")),
                ("breaker_failures", models.IntegerField(db_default=0, default=0)),
                ("breaker_until", models.DateTimeField(blank=True, null=True)),
                ("breaker_message", models.TextField(blank=True, db_default="", default="")),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "outbox_subscription",
            },
        ),
        migrations.CreateModel(
            name="Unsequenced",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("lane", models.SmallIntegerField()),
            ],
            options={
                "verbose_name_plural": "unsequenced",
                "db_table": "outbox_unsequenced",
            },
        ),
        migrations.CreateModel(
            name="DeliveryAttempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.IntegerField()),
                (
                    "error_class",
                    models.CharField(
                        choices=[
                            ("retryable", "Retryable"),
                            ("permanent", "Permanent"),
                            ("configuration", "Configuration"),
                            ("outage", "Outage"),
                            ("crash", "Crash"),
                        ],
                        max_length=15,
                    ),
                ),
                ("code", models.CharField(max_length=100)),
                ("message", models.TextField()),
                ("made_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "delivery",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="timeline", to="outbox.delivery"
                    ),
                ),
            ],
            options={
                "db_table": "outbox_attempt",
            },
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="StoredEvent",
                    fields=[
                        ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                        ("uid", models.UUIDField()),
                        ("lane", models.SmallIntegerField()),
                        ("topic", models.CharField(max_length=150)),
                        ("type", models.CharField(max_length=100)),
                        ("aggregate_type", models.CharField(max_length=100)),
                        ("aggregate_id", models.CharField(max_length=255)),
                        ("sequence", models.BigIntegerField()),
                        ("schema_version", models.IntegerField()),
                        ("payload", outbox.models.fields.JSONTextField()),
                        ("headers", outbox.models.fields.JSONTextField()),
                        ("origin", models.CharField(blank=True, max_length=255)),
                        ("correlation_id", models.CharField(blank=True, max_length=255)),
                        ("causation_id", models.CharField(blank=True, max_length=255)),
                        ("traceparent", models.CharField(blank=True, max_length=255)),
                        ("created_at", models.DateTimeField()),
                    ],
                    options={
                        "verbose_name": "event",
                        "db_table": "outbox_event",
                        "indexes": [
                            models.Index(
                                fields=["aggregate_type", "aggregate_id", "sequence"], name="outbox_event_aggregate"
                            ),
                            models.Index(fields=["uid"], name="outbox_event_uid"),
                        ],
                    },
                ),
            ],
            database_operations=[migrations.RunSQL(EVENT, EVENT_REVERSE)],
        ),
        migrations.AddField(
            model_name="delivery",
            name="subscription",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="outbox.subscription"),
        ),
        migrations.CreateModel(
            name="Watermark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.BigIntegerField()),
                ("passed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "subscription",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="outbox.subscription"),
                ),
            ],
            options={
                "db_table": "outbox_watermark",
            },
        ),
        migrations.CreateModel(
            name="RelayProcess",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("owner", models.CharField(max_length=100)),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("seen_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "subscription",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="outbox.subscription"),
                ),
            ],
            options={
                "db_table": "outbox_relay",
                "constraints": [models.UniqueConstraint(fields=("owner", "subscription"), name="outbox_relay_uniq")],
            },
        ),
        migrations.CreateModel(
            name="Lane",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("lane", models.SmallIntegerField()),
                ("cursor", models.BigIntegerField()),
                ("owner", models.CharField(blank=True, db_default="", default="", max_length=100)),
                ("epoch", models.BigIntegerField(db_default=0, default=0)),
                ("lease_until", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("moved_at", models.DateTimeField(blank=True, null=True)),
                (
                    "strikes",
                    models.SmallIntegerField(
                        db_default=0,
                        default=0,
                        help_text="Leases that ended without being given back, since it last moved.",
                    ),
                ),
                (
                    "attempts",
                    models.SmallIntegerField(
                        db_default=0,
                        default=0,
                        help_text="Starts of work on its next event alone, counted after such leases.",
                    ),
                ),
                ("processed", models.BigIntegerField(db_default=0, default=0)),
                ("errors", models.BigIntegerField(db_default=0, default=0)),
                ("retries", models.BigIntegerField(db_default=0, default=0)),
                (
                    "subscription",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="outbox.subscription"),
                ),
            ],
            options={
                "db_table": "outbox_lane",
                "constraints": [
                    models.UniqueConstraint(fields=("subscription", "lane"), name="outbox_lane_uniq"),
                    models.CheckConstraint(
                        condition=models.Q(("lane__gte", 0), ("lane__lt", 64)), name="outbox_lane_range"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Detour",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("lane", models.SmallIntegerField()),
                ("aggregate_type", models.CharField(max_length=100)),
                ("aggregate_id", models.CharField(max_length=255)),
                ("next_sequence", models.BigIntegerField()),
                ("due", models.DateTimeField(blank=True, help_text="Null: not before a person says so.", null=True)),
                (
                    "started",
                    models.BooleanField(
                        db_default=False,
                        default=False,
                        help_text="Being served; or the worker died while it served it.",
                    ),
                ),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "subscription",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="outbox.subscription"),
                ),
            ],
            options={
                "db_table": "outbox_detour",
                "indexes": [models.Index(fields=["subscription", "lane", "due"], name="outbox_detour_due")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("aggregate_type", "aggregate_id", "subscription"), name="outbox_detour_uniq"
                    )
                ],
            },
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["state", "-id"], name="outbox_delivery_state_idx"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("state__in", ["retrying", "dead"])),
                fields=["fingerprint", "-id"],
                name="outbox_delivery_kind",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("state__in", ["retrying", "dead"])),
                fields=["aggregate_type", "aggregate_id", "sequence"],
                name="outbox_delivery_aggregate",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["event_id"], name="outbox_delivery_event"),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", ["retrying", "dead"])),
                fields=("event_id", "subscription"),
                name="outbox_delivery_open_uniq",
            ),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["retrying", "dead", "resolved"])), name="outbox_delivery_state"
            ),
        ),
        migrations.AddConstraint(
            model_name="watermark",
            constraint=models.UniqueConstraint(fields=("subscription", "position"), name="outbox_watermark_uniq"),
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
        migrations.RunPython(make_first_partitions, migrations.RunPython.noop),
    ]
