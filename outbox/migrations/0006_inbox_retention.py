from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Messages are handled while the index is built.
    atomic = False

    dependencies = [
        ("outbox", "0005_duration_figure"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="inboxmessage",
            index=models.Index(
                condition=models.Q(("outcome__in", ["success", "ignored"])),
                fields=["handled_at"],
                name="outbox_inbox_done",
            ),
        ),
        RemoveIndexConcurrently(model_name="inboxmessage", name="outbox_inbox_handled"),
    ]
