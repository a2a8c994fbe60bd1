from __future__ import annotations

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("operations", "0010_idempotency_correlation"),
    ]

    operations = [
        # Tokens grow over all locks and all times, also of names whose rows were removed.
        migrations.RunSQL(
            "CREATE SEQUENCE operations_lock_token_seq AS bigint", "DROP SEQUENCE operations_lock_token_seq"
        ),
        migrations.CreateModel(
            name="Lock",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(help_text="of what: customer, email, integration", max_length=32)),
                ("key", models.CharField(help_text="which one; of personal data a digest", max_length=200)),
                ("token", models.BigIntegerField()),
                ("holder", models.CharField(max_length=200)),
                ("taken_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "until",
                    models.DateTimeField(
                        blank=True, help_text="null: until its holder, a row itself, is done", null=True
                    ),
                ),
                (
                    "contended",
                    models.PositiveIntegerField(db_default=0, default=0, help_text="how often others found it taken"),
                ),
            ],
            options={
                "default_permissions": ("view",),
                "indexes": [models.Index(models.F("holder"), name="operations_lock_by_holder")],
                "constraints": [models.UniqueConstraint(fields=("kind", "key"), name="operations_lock_uniq")],
            },
        ),
    ]
