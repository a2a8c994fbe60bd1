from __future__ import annotations

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Deliveries and messages come while their indexes are built.
    atomic = False

    dependencies = [("outbox", "0010_erasure")]

    operations = [
        AddIndexConcurrently(
            "delivery",
            models.Index(
                fields=["aggregate_type", "aggregate_id"],
                condition=models.Q(state="resolved"),
                name="outbox_delivery_about",
            ),
        ),
        AddIndexConcurrently(
            "parkedmessage",
            models.Index(fields=["aggregate_type", "aggregate_id"], name="outbox_parked_about"),
        ),
    ]
