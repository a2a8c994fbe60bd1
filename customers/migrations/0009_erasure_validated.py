from __future__ import annotations

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("customers", "0008_erasure")]

    operations = [ValidateConstraint(model_name="customer", name="customers_customer_erased_empty")]
