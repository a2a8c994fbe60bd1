from __future__ import annotations

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("customers", "0018_webhook_reference")]

    operations = [
        migrations.AddField(
            "syncaccount",
            "starts",
            django.contrib.postgres.fields.ArrayField(
                models.FloatField(),
                db_default=[],
                default=list,
                help_text="moments of the last calls; later ones are reserved",
            ),
        ),
        migrations.AddField(
            "syncaccount",
            "due",
            models.FloatField(db_default=0, default=0, help_text="moment of the next call by an even spread"),
        ),
        migrations.AlterField(
            "syncaccount",
            "bulk_at",
            models.DateTimeField(blank=True, help_text="when a bulk call was reserved last", null=True),
        ),
        migrations.AlterField(
            "syncaccount",
            "webhook_at",
            models.DateTimeField(blank=True, help_text="when a webhook's call was reserved last", null=True),
        ),
        migrations.RemoveField("syncaccount", "refilled_at"),
        migrations.RemoveField("syncaccount", "tokens"),
    ]
