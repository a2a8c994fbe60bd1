from __future__ import annotations

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Protected changes go on while their index is built.
    atomic = False

    dependencies = [("customers", "0016_saga_validated")]

    operations = [
        AddIndexConcurrently(
            "saga",
            models.Index("correlation_id", condition=~models.Q(correlation_id=""), name="saga_by_correlation"),
        ),
    ]
