import django.contrib.postgres.indexes
import django.contrib.postgres.search
from django.db import migrations, models

# Readers see a view. It shows nothing until the engine makes the first build and points the view at its table.
VIEWS = """
CREATE VIEW customers_directory AS SELECT * FROM customers_directory_shape;
CREATE VIEW customers_activity AS SELECT * FROM customers_activity_shape;
"""
VIEWS_REVERSE = "DROP VIEW customers_directory, customers_activity"


class Migration(migrations.Migration):
    dependencies = [
        ("customers", "0002_sync"),
    ]

    operations = [
        migrations.CreateModel(
            name="ActivityDay",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "day", "type", "origin", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("day", models.DateField()),
                ("type", models.CharField(max_length=100)),
                ("origin", models.CharField(max_length=255)),
                ("events", models.BigIntegerField()),
            ],
            options={
                "db_table": "customers_activity",
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="DirectoryEntry",
            fields=[
                ("customer_id", models.UUIDField(primary_key=True, serialize=False)),
                ("name", models.TextField(null=True)),
                ("email", models.TextField(null=True)),
                ("phone", models.TextField(null=True)),
                ("version", models.IntegerField()),
                ("origin", models.CharField(max_length=255)),
                ("updated_at", models.DateTimeField()),
                ("last_sequence", models.BigIntegerField()),
                ("document", django.contrib.postgres.search.SearchVectorField(null=True)),
            ],
            options={
                "db_table": "customers_directory",
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="ActivityShape",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "day", "type", "origin", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("day", models.DateField()),
                ("type", models.CharField(max_length=100)),
                ("origin", models.CharField(max_length=255)),
                ("events", models.BigIntegerField()),
            ],
            options={
                "db_table": "customers_activity_shape",
                "db_table_comment": "The empty table that the engine makes each build's table like.",
            },
        ),
        migrations.CreateModel(
            name="DirectoryShape",
            fields=[
                ("customer_id", models.UUIDField(primary_key=True, serialize=False)),
                ("name", models.TextField(null=True)),
                ("email", models.TextField(null=True)),
                ("phone", models.TextField(null=True)),
                ("version", models.IntegerField()),
                ("origin", models.CharField(max_length=255)),
                ("updated_at", models.DateTimeField()),
                ("last_sequence", models.BigIntegerField()),
                ("document", django.contrib.postgres.search.SearchVectorField(null=True)),
            ],
            options={
                "db_table": "customers_directory_shape",
                "db_table_comment": "The empty table that the engine makes each build's table like.",
                "indexes": [
                    django.contrib.postgres.indexes.GinIndex(fields=["document"], name="customers_directory_words"),
                    models.Index(fields=["-updated_at", "-customer_id"], name="customers_directory_recent"),
                ],
            },
        ),
        migrations.RunSQL(VIEWS, VIEWS_REVERSE),
    ]
