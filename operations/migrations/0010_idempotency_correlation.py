from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("operations", "0009_customer_scopes")]

    operations = [
        migrations.AddField(
            model_name="idempotencykey",
            name="correlation_id",
            field=models.CharField(blank=True, db_default="", default="", max_length=128),
        ),
        AddIndexConcurrently(
            model_name="idempotencykey",
            index=models.Index(
                condition=models.Q(("correlation_id", ""), _negated=True),
                fields=["correlation_id"],
                name="operations_idempotency_cause",
            ),
        ),
    ]
