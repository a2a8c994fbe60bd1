from __future__ import annotations

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models import F, Q


class Migration(migrations.Migration):
    # Comparisons go on while the index is built.
    atomic = False

    dependencies = [("customers", "0020_names_another")]

    operations = [
        AddIndexConcurrently(
            "drift",
            models.Index(F("id").desc(), condition=Q(status="open", safe=False), name="drift_proposals"),
        ),
        migrations.AlterField(
            "drift",
            "status",
            models.CharField(
                choices=[
                    ("open", "waits"),
                    ("accepted", "is being repaired"),
                    ("repaired", "Repaired"),
                    ("declined", "left as it is"),
                    ("gone", "not there any more"),
                ],
                default="open",
                max_length=10,
            ),
        ),
    ]
