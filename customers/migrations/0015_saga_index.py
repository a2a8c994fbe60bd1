from __future__ import annotations

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # States are synchronised while their index is built.
    atomic = False

    dependencies = [("customers", "0014_saga")]

    operations = [
        AddIndexConcurrently(
            "syncstate",
            models.Index("saga", condition=models.Q(saga__isnull=False), name="syncstate_by_saga"),
        ),
    ]
