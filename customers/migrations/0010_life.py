import django.db.models.deletion
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

# Not valid at first: rows that exist are not looked at while writers wait. Validated afterwards, beside them.
COLUMN = """
ALTER TABLE customers_webhook ADD COLUMN caused_by_id bigint NULL;
ALTER TABLE customers_webhook ADD CONSTRAINT customers_webhook_caused_by_fk FOREIGN KEY (caused_by_id)
  REFERENCES customers_syncrequest (id) DEFERRABLE INITIALLY DEFERRED NOT VALID;
"""
COLUMN_REVERSE = "ALTER TABLE customers_webhook DROP COLUMN caused_by_id"
VALIDATE = "ALTER TABLE customers_webhook VALIDATE CONSTRAINT customers_webhook_caused_by_fk"


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("customers", "0009_erasure_validated")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddField(
                    model_name="webhook",
                    name="caused_by",
                    field=models.ForeignKey(
                        blank=True,
                        db_index=False,
                        help_text="the request of ours that it tells of",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="webhooks",
                        to="customers.syncrequest",
                    ),
                )
            ],
            database_operations=[
                migrations.RunSQL(COLUMN, COLUMN_REVERSE),
                migrations.RunSQL(VALIDATE, migrations.RunSQL.noop),
            ],
        ),
        AddIndexConcurrently(
            model_name="webhook",
            index=models.Index(
                models.F("caused_by"), condition=models.Q(("caused_by__isnull", False)), name="webhook_by_cause"
            ),
        ),
        AddIndexConcurrently(
            model_name="webhook",
            index=models.Index(
                models.F("correlation_id"),
                condition=models.Q(("correlation_id", ""), _negated=True),
                name="webhook_by_correlation",
            ),
        ),
        AddIndexConcurrently(
            model_name="syncrequest",
            index=models.Index(
                models.F("correlation_id"),
                models.F("id"),
                condition=models.Q(("correlation_id", ""), _negated=True),
                name="syncrequest_by_correlation",
            ),
        ),
    ]
