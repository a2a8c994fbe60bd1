from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("customers", "0019_moments_of_calls")]

    operations = [
        migrations.AlterField(
            model_name="conflict",
            name="kind",
            field=models.CharField(
                choices=[
                    ("field", "both sides changed a field"),
                    ("email_taken", "another customer has this e-mail"),
                    ("refused_here", "the catalogue cannot hold the remote value"),
                    ("same_email", "an unlinked remote record has this e-mail"),
                    ("several", "several remote records carry this customer's id"),
                    ("delete_refused", "the remote record has something live"),
                    ("remote_deleted", "deleted remotely only"),
                    ("remote_missing", "the integration does not know the remote id"),
                    ("names_another", "the remote record carries the id of a customer that has none"),
                    ("linked_elsewhere", "the remote record belongs to another customer"),
                ],
                max_length=16,
            ),
        ),
    ]
