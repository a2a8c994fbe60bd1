from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    # Keys are used while their indexes are built.
    atomic = False

    dependencies = [("operations", "0003_operation")]

    operations = [
        AddIndexConcurrently(
            "apikey",
            models.Index("expires_at", condition=models.Q(revoked_at=None), name="apikey_ends"),
        ),
        AddIndexConcurrently(
            "apikey",
            models.Index(models.F("id").desc(), condition=models.Q(revoked_at__isnull=False), name="apikey_revoked"),
        ),
    ]
