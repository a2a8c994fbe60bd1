from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("customers", "0021_drift_proposals")]

    operations = [
        migrations.AlterModelOptions("importrun", {"verbose_name": "imported file"}),
    ]
