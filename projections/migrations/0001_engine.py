import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

# The row of a build is updated in place with every batch: room for it in its page, and soon vacuumed.
STORAGE = """
ALTER TABLE projections_build SET (fillfactor = 25, autovacuum_vacuum_scale_factor = 0,
                                   autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE projections_minute SET (fillfactor = 70);
"""

# For people with psql, under the names that they know; of what readers see.
VIEWS = """
CREATE VIEW projection_checkpoints AS
SELECT projection AS projection_name, version, id AS build, last_event_id, last_event_type,
       cursor AS last_event_sequence, events_processed, checkpoint_at
  FROM projections_build WHERE state = 'live';
CREATE VIEW projection_failures AS
SELECT f.id, f.projection AS projection_name, f.build_id AS build, f.event_id, f.event_type,
       f.position AS event_sequence, f.aggregate_type, f.aggregate_id, f.error_class, f.code AS error_type,
       f.message AS error_message, f.traceback AS error_traceback, f.attempts, greatest(f.attempts - 1, 0) AS retry_count,
       5 AS max_retries, f.first_failed_at AS failed_at, f.last_failed_at, f.next_retry_at, f.state, f.strategy,
       f.resolution, f.resolved_by, f.resolved_at
  FROM projections_failure f;
CREATE VIEW projection_health_metrics AS
SELECT b.projection AS projection_name, m.minute AS measured_at, m.events AS events_processed, m.failures AS failed_attempts,
       m.batches, CASE WHEN m.batches > 0 THEN m.apply_ms / m.batches END AS average_apply_ms, m.status AS health_status,
       m.active_failures, m.lag_seconds, m.lag_events
  FROM projections_minute m JOIN projections_build b ON b.id = m.build_id;
"""
VIEWS_REVERSE = "DROP VIEW projection_checkpoints, projection_failures, projection_health_metrics"


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Build",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("projection", models.CharField(max_length=100)),
                ("version", models.IntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("live", "Live"),
                            ("building", "Building"),
                            ("standby", "Standby"),
                            ("retired", "Retired"),
                        ],
                        max_length=10,
                    ),
                ),
                (
                    "cursor",
                    models.BigIntegerField(db_default=0, default=0, help_text="The last position that is done with."),
                ),
                ("last_event_id", models.BigIntegerField(blank=True, null=True)),
                ("last_event_type", models.CharField(blank=True, db_default="", default="", max_length=100)),
                ("events_processed", models.BigIntegerField(db_default=0, default=0)),
                ("failures_seen", models.BigIntegerField(db_default=0, default=0, help_text="Attempts that failed.")),
                ("checkpoint_at", models.DateTimeField(blank=True, null=True)),
                ("owner", models.CharField(blank=True, db_default="", default="", max_length=100)),
                ("epoch", models.BigIntegerField(db_default=0, default=0)),
                ("lease_until", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "seen_at",
                    models.DateTimeField(
                        blank=True, help_text="When a runner last looked whether there is something to do.", null=True
                    ),
                ),
                (
                    "strikes",
                    models.SmallIntegerField(
                        db_default=0,
                        default=0,
                        help_text="Leases that ended without being given back, until that place is passed.",
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
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "switched_at",
                    models.DateTimeField(blank=True, help_text="When readers were switched to it last.", null=True),
                ),
                ("retired_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "db_table": "projections_build",
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state", "live")), fields=("projection",), name="projections_build_one_live"
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("state", "building")),
                        fields=("projection",),
                        name="projections_build_one_building",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("state", "standby")),
                        fields=("projection",),
                        name="projections_build_one_standby",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["live", "building", "standby", "retired"])),
                        name="projections_build_state",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Failure",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("projection", models.CharField(max_length=100)),
                ("event_id", models.BigIntegerField()),
                ("position", models.BigIntegerField()),
                ("event_type", models.CharField(max_length=100)),
                ("topic", models.CharField(max_length=150)),
                ("aggregate_type", models.CharField(max_length=100)),
                ("aggregate_id", models.CharField(max_length=255)),
                ("sequence", models.BigIntegerField()),
                (
                    "error_class",
                    models.CharField(
                        choices=[
                            ("transient", "Transient"),
                            ("poison", "Poison"),
                            ("unknown_type", "Unknown Type"),
                            ("schema", "Schema"),
                        ],
                        max_length=15,
                    ),
                ),
                ("code", models.CharField(max_length=100)),
                ("message", models.TextField()),
                ("traceback", models.TextField(blank=True)),
                ("fingerprint", models.CharField(help_text="The same for failures of the same kind.", max_length=64)),
                ("attempts", models.IntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[("retrying", "Retrying"), ("manual", "Manual"), ("resolved", "Resolved")],
                        max_length=10,
                    ),
                ),
                ("next_retry_at", models.DateTimeField(blank=True, null=True)),
                ("first_failed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("last_failed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
                (
                    "strategy",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("retry", "try the event again"),
                            ("skip", "go on without this event"),
                            ("manual_fix", "the rows were put right by hand: go on without this event"),
                            ("compensate", "call a registered function in place of this event"),
                            ("rebuild_aggregate", "compute the rows of the aggregate anew from the log"),
                        ],
                        db_default="",
                        default="",
                        help_text="Empty: a retry went through.",
                        max_length=20,
                    ),
                ),
                (
                    "resolution",
                    models.TextField(blank=True, db_default="", default="", help_text="The operator's note."),
                ),
                ("resolved_by", models.CharField(blank=True, db_default="", default="", max_length=200)),
                ("build", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="projections.build")),
            ],
            options={
                "db_table": "projections_failure",
            },
        ),
        migrations.CreateModel(
            name="FailureAttempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.IntegerField()),
                (
                    "error_class",
                    models.CharField(
                        choices=[
                            ("transient", "Transient"),
                            ("poison", "Poison"),
                            ("unknown_type", "Unknown Type"),
                            ("schema", "Schema"),
                        ],
                        max_length=15,
                    ),
                ),
                ("code", models.CharField(max_length=100)),
                ("message", models.TextField()),
                ("made_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "failure",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="timeline", to="projections.failure"
                    ),
                ),
            ],
            options={
                "db_table": "projections_attempt",
            },
        ),
        migrations.CreateModel(
            name="Minute",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("minute", models.DateTimeField()),
                ("events", models.BigIntegerField(db_default=0, default=0)),
                ("failures", models.BigIntegerField(db_default=0, default=0, help_text="Attempts that failed.")),
                ("batches", models.IntegerField(db_default=0, default=0)),
                ("apply_ms", models.FloatField(db_default=0, default=0)),
                (
                    "buckets",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.IntegerField(), default=list, size=None
                    ),
                ),
                ("status", models.CharField(blank=True, db_default="", default="", max_length=10)),
                ("active_failures", models.IntegerField(blank=True, null=True)),
                ("lag_seconds", models.FloatField(blank=True, null=True)),
                ("lag_events", models.BigIntegerField(blank=True, null=True)),
                ("build", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="projections.build")),
            ],
            options={
                "db_table": "projections_minute",
            },
        ),
        migrations.CreateModel(
            name="Detour",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("aggregate_type", models.CharField(max_length=100)),
                ("aggregate_id", models.CharField(max_length=255)),
                ("next_sequence", models.BigIntegerField()),
                ("due", models.DateTimeField(blank=True, help_text="Null: not before a person says so.", null=True)),
                (
                    "rebuild",
                    models.BooleanField(
                        db_default=False,
                        default=False,
                        help_text="Its rows are to be computed anew, from its first event on.",
                    ),
                ),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("build", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="projections.build")),
            ],
            options={
                "db_table": "projections_detour",
                "indexes": [models.Index(fields=["build", "due"], name="projections_detour_due")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("build", "aggregate_type", "aggregate_id"), name="projections_detour_uniq"
                    )
                ],
            },
        ),
        migrations.AddIndex(
            model_name="failure",
            index=models.Index(fields=["projection", "state", "-id"], name="projections_failure_list"),
        ),
        migrations.AddIndex(
            model_name="failure",
            index=models.Index(
                condition=models.Q(("state__in", ["retrying", "manual"])),
                fields=["fingerprint", "-id"],
                name="projections_failure_kind",
            ),
        ),
        migrations.AddIndex(
            model_name="failure",
            index=models.Index(fields=["event_id"], name="projections_failure_event"),
        ),
        migrations.AddConstraint(
            model_name="failure",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", ["retrying", "manual"])),
                fields=("build", "aggregate_type", "aggregate_id"),
                name="projections_failure_active_uniq",
            ),
        ),
        migrations.AddConstraint(
            model_name="failure",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["retrying", "manual", "resolved"])), name="projections_failure_state"
            ),
        ),
        migrations.AddConstraint(
            model_name="failure",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("strategy", "manual_fix"), _negated=True),
                    models.Q(("resolution", ""), _negated=True),
                    _connector="OR",
                ),
                name="projections_failure_fix_has_note",
            ),
        ),
        migrations.AddConstraint(
            model_name="minute",
            constraint=models.UniqueConstraint(fields=("build", "minute"), name="projections_minute_uniq"),
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
        migrations.RunSQL(VIEWS, VIEWS_REVERSE),
    ]
