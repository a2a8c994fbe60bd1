"""A dead consumed message may hold its aggregate back; giving up is a permission of its own."""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0007_reported_by"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="parkedmessage",
            options={
                "permissions": [
                    ("redrive_parkedmessage", "Can send consumed dead letters again"),
                    ("discard_parkedmessage", "Can give consumed dead letters up"),
                ],
                "verbose_name": "consumed message",
            },
        ),
        migrations.AddField(
            model_name="parkedmessage",
            name="blocks",
            field=models.BooleanField(
                db_default=False,
                default=False,
                help_text="It is dead, and the later ones of its aggregate wait behind it.",
            ),
        ),
        AddConstraintNotValid(
            model_name="parkedmessage",
            constraint=models.CheckConstraint(
                condition=models.Q(("blocks", False), ("state", "dead"), _connector="OR"), name="outbox_parked_blocks"
            ),
        ),
    ]
