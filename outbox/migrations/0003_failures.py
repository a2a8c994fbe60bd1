import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

# An attempt names its subscriber and event instead of pointing at its delivery.
COPY = """
UPDATE outbox_attempt a SET subscriber = d.subscription_id, event_id = d.event_id
  FROM outbox_delivery d WHERE d.id = a.delivery_id;
UPDATE outbox_delivery SET resolution = 'delivered' WHERE state = 'resolved';
"""

# As for the audit trail: a bug or a console cannot rewrite history, and retention says so when it deletes.
REFUSE = """
CREATE FUNCTION outbox_attempt_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('zenskar.attempt_retention', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'attempts are only ever added' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER outbox_attempt_append_only BEFORE UPDATE OR DELETE ON outbox_attempt
    FOR EACH STATEMENT EXECUTE FUNCTION outbox_attempt_refuse_change();
"""
ALLOW = """
DROP TRIGGER outbox_attempt_append_only ON outbox_attempt;
DROP FUNCTION outbox_attempt_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0002_views"),
    ]

    operations = [
        migrations.CreateModel(
            name="Replacement",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("subscriber", models.CharField(max_length=100)),
                ("original_id", models.BigIntegerField(help_text="Of the event that could not be delivered.")),
                ("event_id", models.BigIntegerField(help_text="Of the event that was published instead.", unique=True)),
                ("diff", models.JSONField(help_text="What was changed: pointer, before, after.")),
                ("actor", models.CharField(max_length=200)),
                ("reason", models.TextField()),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "outbox_replacement",
            },
        ),
        migrations.CreateModel(
            name="Retained",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("first_event_id", models.BigIntegerField(help_text="Every event from this id on is there.")),
                ("first_position", models.BigIntegerField(help_text="Every place from this one on is there.")),
                ("updated_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "db_table": "outbox_retained",
            },
        ),
        migrations.CreateModel(
            name="TopicFigure",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("topic", models.CharField(max_length=150)),
                ("processed", models.BigIntegerField(db_default=0, default=0)),
                ("errors", models.BigIntegerField(db_default=0, default=0)),
                ("retries", models.BigIntegerField(db_default=0, default=0)),
            ],
            options={
                "db_table": "outbox_topic_figure",
            },
        ),
        migrations.AlterModelOptions(
            name="delivery",
            options={
                "permissions": [
                    ("retry_delivery", "Can retry deliveries"),
                    ("skip_delivery", "Can skip deliveries"),
                    ("edit_delivery", "Can edit an event and replay it"),
                ],
                "verbose_name_plural": "deliveries",
            },
        ),
        migrations.AlterModelOptions(
            name="storedevent",
            options={
                "permissions": [("read_payload", "Can read payloads"), ("process_log", "Can drain the log by hand")],
                "verbose_name": "event",
            },
        ),
        migrations.AlterModelOptions(
            name="subscription",
            options={
                "permissions": [
                    ("pause_subscription", "Can pause and resume subscribers"),
                    ("limit_subscription", "Can change the limits of subscribers"),
                    ("republish_subscription", "Can publish a range of the log to a subscriber again"),
                ]
            },
        ),
        migrations.AddField(
            model_name="delivery",
            name="attempts_before",
            field=models.IntegerField(
                db_default=0, default=0, help_text="Attempts made before a person last asked for a retry."
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="resolution",
            field=models.CharField(
                blank=True,
                choices=[("delivered", "Delivered"), ("skipped", "Skipped"), ("replaced", "Replaced")],
                db_default="",
                default="",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="resolved_by",
            field=models.CharField(blank=True, db_default="", default="", max_length=200),
        ),
        migrations.AddField(
            model_name="delivery",
            name="resolved_reason",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.AddField(
            model_name="deliveryattempt",
            name="event_id",
            field=models.BigIntegerField(default=0),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="deliveryattempt",
            name="outcome",
            field=models.CharField(
                choices=[("failed", "Failed"), ("delivered", "Delivered")], default="failed", max_length=10
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="deliveryattempt",
            name="response",
            field=models.CharField(blank=True, help_text="What the other side answered, in short.", max_length=200),
        ),
        migrations.AddField(
            model_name="deliveryattempt",
            name="seconds",
            field=models.FloatField(default=0.0, help_text="Of the call that it was part of."),
            preserve_default=False,
        ),
        migrations.RenameField(model_name="deliveryattempt", old_name="made_at", new_name="started_at"),
        migrations.AlterField(
            model_name="deliveryattempt",
            name="started_at",
            field=models.DateTimeField(help_text="By the database's clock, as exact as the duration."),
        ),
        migrations.AddField(
            model_name="deliveryattempt",
            name="subscriber",
            field=models.CharField(default="", max_length=100),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="deliveryattempt",
            name="worker",
            field=models.CharField(blank=True, max_length=100),
        ),
        migrations.AddField(
            model_name="subscription",
            name="concurrency",
            field=models.SmallIntegerField(
                blank=True, help_text="Calls at a time over all processes; null: as it declares.", null=True
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="keep_successes",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Keep an attempt of each event that went through, too."
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="paused_by",
            field=models.CharField(blank=True, db_default="", default="", max_length=200),
        ),
        migrations.AddField(
            model_name="subscription",
            name="rate_limit",
            field=models.FloatField(blank=True, help_text="Events a second; null: as it declares.", null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="refilled_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="subscription",
            name="tokens",
            field=models.FloatField(
                db_default=0, default=0, help_text="Of the rate limit, when it was last looked at."
            ),
        ),
        migrations.AlterField(
            model_name="deliveryattempt",
            name="code",
            field=models.CharField(blank=True, max_length=100),
        ),
        migrations.AlterField(
            model_name="deliveryattempt",
            name="error_class",
            field=models.CharField(
                blank=True,
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
        migrations.AlterField(
            model_name="deliveryattempt",
            name="message",
            field=models.TextField(blank=True),
        ),
        migrations.RunSQL(COPY, migrations.RunSQL.noop),
        migrations.RemoveField(model_name="deliveryattempt", name="delivery"),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("state", "resolved")), fields=["resolved_at"], name="outbox_delivery_resolved"
            ),
        ),
        migrations.AddIndex(
            model_name="deliveryattempt",
            index=models.Index(fields=["event_id", "id"], name="outbox_attempt_event"),
        ),
        migrations.AddConstraint(
            model_name="delivery",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("resolution__in", ["delivered", "skipped", "replaced"]), ("state", "resolved")),
                    models.Q(models.Q(("state", "resolved"), _negated=True), ("resolution", "")),
                    _connector="OR",
                ),
                name="outbox_delivery_resolution",
            ),
        ),
        migrations.AddConstraint(
            model_name="deliveryattempt",
            constraint=models.CheckConstraint(
                condition=models.Q(("outcome__in", ["failed", "delivered"])), name="outbox_attempt_outcome"
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(("rate_limit__gt", 0)), name="outbox_subscription_rate"
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(("concurrency__gt", 0)), name="outbox_subscription_concurrency"
            ),
        ),
        migrations.AddIndex(
            model_name="replacement",
            index=models.Index(fields=["original_id"], name="outbox_replacement_original"),
        ),
        migrations.AddConstraint(
            model_name="retained",
            constraint=models.CheckConstraint(condition=models.Q(("id", 1)), name="outbox_retained_one_row"),
        ),
        migrations.AddField(
            model_name="topicfigure",
            name="subscription",
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="outbox.subscription"),
        ),
        migrations.AddConstraint(
            model_name="topicfigure",
            constraint=models.UniqueConstraint(fields=("subscription", "topic"), name="outbox_topic_figure_uniq"),
        ),
        migrations.RunSQL(REFUSE, ALLOW),
    ]
