"""The queue of an aggregate begins with a dead message that blocks it."""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently, ValidateConstraint
from django.db import migrations, models


class Migration(migrations.Migration):
    # Indexes are built and removed while everybody goes on.
    atomic = False

    dependencies = [
        ("outbox", "0008_dead_policy"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="parkedmessage",
            index=models.Index(
                condition=models.Q(("state__in", ["retrying", "waiting"]), ("blocks", True), _connector="OR"),
                fields=["aggregate_type", "aggregate_id", "topic", "consumer_group", "id"],
                name="outbox_parked_queued",
            ),
        ),
        RemoveIndexConcurrently(model_name="parkedmessage", name="outbox_parked_queue"),
        ValidateConstraint(model_name="parkedmessage", name="outbox_parked_blocks"),
    ]
