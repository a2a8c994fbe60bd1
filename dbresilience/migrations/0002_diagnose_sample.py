from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("dbresilience", "0001_monitor")]

    operations = [
        migrations.AlterModelOptions(
            name="sample",
            options={"permissions": [("diagnose_sample", "Can run the diagnostics of the database")]},
        ),
    ]
