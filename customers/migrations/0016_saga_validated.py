from __future__ import annotations

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("customers", "0015_saga_index")]

    operations = [ValidateConstraint(model_name="syncstate", name="customers_syncstate_has_a_side")]
