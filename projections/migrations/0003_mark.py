import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("projections", "0002_permissions")]

    operations = [
        migrations.CreateModel(
            name="Mark",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.BigIntegerField()),
                ("passed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "build",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="projections.build"),
                ),
            ],
            options={
                "db_table": "projections_mark",
                "default_permissions": (),
                "indexes": [models.Index(fields=["passed_at"], name="projections_mark_passed")],
                "constraints": [models.UniqueConstraint(fields=("build", "position"), name="projections_mark_uniq")],
            },
        ),
    ]
