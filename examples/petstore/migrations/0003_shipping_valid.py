from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations


class Migration(migrations.Migration):
    # Orders are placed while the old ones are looked through.
    dependencies = [("petstore", "0002_shipping")]

    operations = [ValidateConstraint(model_name="order", name="petstore_order_shipped")]
