from __future__ import annotations

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
from django.db.models.fields.json import KT


class Migration(migrations.Migration):
    # Webhooks come in while their index is built.
    atomic = False

    dependencies = [("customers", "0017_saga_correlation")]

    operations = [
        AddIndexConcurrently(
            "webhook",
            models.Index(KT("payload__data__object__metadata__zenskar_id"), name="webhook_by_reference"),
        ),
    ]
