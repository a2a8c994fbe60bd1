from __future__ import annotations

import django.db.models.deletion
import django.db.models.functions.datetime
import uuid_utils.compat
from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models

# What has ended stays as it ended, and nobody turns back twice, whatever a program does.
MOVES = """
CREATE FUNCTION customers_saga_refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.status, NEW.status) NOT IN (('running', 'undoing'), ('running', 'done'), ('running', 'stuck'),
                                        ('undoing', 'undone'), ('undoing', 'stuck'),
                                        ('stuck', 'running'), ('stuck', 'undoing')) THEN
        RAISE EXCEPTION 'a protected change cannot go from % to %', OLD.status, NEW.status
              USING ERRCODE = 'check_violation', CONSTRAINT = 'customers_saga_moves';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER customers_saga_moves BEFORE UPDATE OF status ON customers_saga
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION customers_saga_refuse_move();
"""
STAY = """
DROP TRIGGER customers_saga_moves ON customers_saga;
DROP FUNCTION customers_saga_refuse_move();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("customers", "0013_polling"),
    ]

    operations = [
        migrations.CreateModel(
            name="Saga",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid_utils.compat.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "action",
                    models.CharField(
                        choices=[("create", "Create"), ("update", "Update"), ("delete", "Delete")], max_length=8
                    ),
                ),
                ("customer_id", models.UUIDField()),
                (
                    "definition",
                    models.PositiveSmallIntegerField(default=1, help_text="which plan of steps it was begun with"),
                ),
                ("values", models.JSONField(blank=True, default=dict)),
                ("fields", models.JSONField(blank=True, default=list, help_text="names of what it changes")),
                ("origin", models.CharField(max_length=32)),
                ("priority", models.CharField(default="interactive", max_length=16)),
                ("actor", models.CharField(max_length=200)),
                (
                    "address",
                    models.CharField(
                        help_text="where customers are found, as whoever asked for it knows it", max_length=500
                    ),
                ),
                (
                    "idempotency_id",
                    models.BigIntegerField(blank=True, help_text="key that its end completes", null=True),
                ),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("running", "Running"),
                            ("undoing", "Undoing"),
                            ("done", "Done"),
                            ("undone", "Undone"),
                            ("stuck", "stuck: a person must look"),
                        ],
                        default="running",
                        max_length=8,
                    ),
                ),
                (
                    "failure",
                    models.JSONField(blank=True, help_text="why it turned back: members of the problem", null=True),
                ),
                (
                    "attempts",
                    models.PositiveIntegerField(
                        db_default=0, default=0, help_text="failures since the last step went on"
                    ),
                ),
                (
                    "strikes",
                    models.PositiveIntegerField(
                        db_default=0, default=0, help_text="of those, the ones that were no outage"
                    ),
                ),
                (
                    "next_attempt_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="not taken before; under a lease, its end",
                    ),
                ),
                ("give_up_at", models.DateTimeField(help_text="not begun anew after; what cannot be undone goes on")),
                ("last_error_class", models.CharField(blank=True, db_default="", default="", max_length=32)),
                ("last_error_code", models.CharField(blank=True, db_default="", default="", max_length=64)),
                ("last_error_message", models.TextField(blank=True, db_default="", default="")),
                ("lease_owner", models.CharField(blank=True, db_default="", default="", max_length=128)),
                ("lease_token", models.BigIntegerField(db_default=0, default=0)),
                ("lease_until", models.DateTimeField(blank=True, null=True)),
                ("correlation_id", models.CharField(blank=True, db_default="", default="", max_length=128)),
                ("traceparent", models.CharField(blank=True, db_default="", default="", max_length=55)),
                ("created_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("updated_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "protected change",
                "permissions": [("retry_saga", "Can have stuck protected changes tried again")],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="SagaStep",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveSmallIntegerField()),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("reserve", "locks and first checks"),
                            ("check", "whether the integration allows it"),
                            ("remote", "the change in the integration"),
                            ("local", "the change here, with its event"),
                        ],
                        max_length=8,
                    ),
                ),
                ("integration", models.CharField(blank=True, default="", max_length=32)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("running", "Running"),
                            ("done", "Done"),
                            ("refused", "Refused"),
                            ("undoing", "Undoing"),
                            ("undone", "Undone"),
                            ("skipped", "nothing was sent"),
                        ],
                        default="waiting",
                        max_length=8,
                    ),
                ),
                ("attempts", models.PositiveIntegerField(db_default=0, default=0)),
                ("undo_attempts", models.PositiveIntegerField(db_default=0, default=0)),
                (
                    "before",
                    models.JSONField(
                        blank=True,
                        help_text="what the fields that were sent were there before; until the saga ends",
                        null=True,
                    ),
                ),
                ("error_code", models.CharField(blank=True, db_default="", default="", max_length=64)),
                ("error_message", models.TextField(blank=True, db_default="", default="")),
                ("started_at", models.DateTimeField(blank=True, null=True)),
                (
                    "finished_at",
                    models.DateTimeField(blank=True, help_text="done, refused, undone or left out", null=True),
                ),
            ],
            options={
                "verbose_name": "step",
                "default_permissions": (),
            },
        ),
        migrations.RemoveConstraint(
            model_name="syncstate",
            name="customers_syncstate_has_a_side",
        ),
        migrations.AddIndex(
            model_name="saga",
            index=models.Index(
                models.F("next_attempt_at"), condition=models.Q(("status__in", ("running", "undoing"))), name="saga_due"
            ),
        ),
        migrations.AddIndex(
            model_name="saga",
            index=models.Index(
                models.OrderBy(models.F("id"), descending=True),
                condition=models.Q(("status", "stuck")),
                name="saga_stuck",
            ),
        ),
        migrations.AddIndex(
            model_name="saga",
            index=models.Index(
                models.OrderBy(models.F("id"), descending=True),
                condition=models.Q(("status__in", ("running", "undoing"))),
                name="saga_open",
            ),
        ),
        migrations.AddIndex(
            model_name="saga",
            index=models.Index(
                models.OrderBy(models.F("id"), descending=True),
                condition=models.Q(("status", "undone")),
                name="saga_undone",
            ),
        ),
        migrations.AddIndex(
            model_name="saga",
            index=models.Index(
                models.F("customer_id"), models.OrderBy(models.F("id"), descending=True), name="saga_by_customer"
            ),
        ),
        migrations.AddIndex(
            model_name="saga",
            index=models.Index(
                models.F("finished_at"), condition=models.Q(("finished_at__isnull", False)), name="saga_finished"
            ),
        ),
        migrations.AddConstraint(
            model_name="saga",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status__in", ("running", "undoing"))),
                fields=("customer_id",),
                name="customers_saga_open_uniq",
            ),
        ),
        migrations.AddConstraint(
            model_name="saga",
            constraint=models.UniqueConstraint(fields=("idempotency_id",), name="customers_saga_key_uniq"),
        ),
        migrations.AddConstraint(
            model_name="saga",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["running", "undoing", "done", "undone", "stuck"])),
                name="customers_saga_status_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="saga",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at__isnull", False), ("status__in", ("done", "undone"))),
                    models.Q(
                        models.Q(("status__in", ("done", "undone")), _negated=True), ("finished_at__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="customers_saga_finished_has_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="saga",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("failure__isnull", False), ("status__in", ["undoing", "undone"])),
                    models.Q(("failure__isnull", True), ("status__in", ["running", "done"])),
                    ("status", "stuck"),
                    _connector="OR",
                ),
                name="customers_saga_turned_back_has_failure",
            ),
        ),
        migrations.AddConstraint(
            model_name="saga",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status__in", ("done", "undone")), _negated=True), ("values", {}), _connector="OR"
                ),
                name="customers_saga_finished_is_empty",
            ),
        ),
        migrations.AddField(
            model_name="syncstate",
            name="saga",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="states",
                to="customers.saga",
            ),
        ),
        # Looked at for old rows by a later migration, which locks nobody out.
        AddConstraintNotValid(
            model_name="syncstate",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("customer__isnull", False), ("remote_id__isnull", False), ("saga__isnull", False), _connector="OR"
                ),
                name="customers_syncstate_has_a_side",
            ),
        ),
        migrations.AddField(
            model_name="sagastep",
            name="request",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="customers.syncrequest",
            ),
        ),
        migrations.AddField(
            model_name="sagastep",
            name="saga",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="steps", to="customers.saga"
            ),
        ),
        migrations.AddField(
            model_name="sagastep",
            name="undo_request",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="customers.syncrequest",
            ),
        ),
        migrations.AddIndex(
            model_name="sagastep",
            index=models.Index(
                models.F("request"), condition=models.Q(("request__isnull", False)), name="sagastep_by_request"
            ),
        ),
        migrations.AddIndex(
            model_name="sagastep",
            index=models.Index(
                models.F("undo_request"),
                condition=models.Q(("undo_request__isnull", False)),
                name="sagastep_by_undo_request",
            ),
        ),
        migrations.AddConstraint(
            model_name="sagastep",
            constraint=models.UniqueConstraint(fields=("saga", "number"), name="customers_sagastep_number_uniq"),
        ),
        migrations.AddConstraint(
            model_name="sagastep",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at__isnull", True), ("status__in", ["waiting", "running", "undoing"])),
                    models.Q(("finished_at__isnull", False), ("status__in", ["done", "refused", "undone", "skipped"])),
                    _connector="OR",
                ),
                name="customers_sagastep_finished_has_time",
            ),
        ),
        migrations.AddConstraint(
            model_name="sagastep",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("integration", ""), ("kind__in", ["reserve", "local"])),
                    models.Q(("kind__in", ["check", "remote"]), models.Q(("integration", ""), _negated=True)),
                    _connector="OR",
                ),
                name="customers_sagastep_integration_named",
            ),
        ),
        migrations.RunSQL(MOVES, STAY),
    ]
