import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import examples.petstore.models

# Readers see a view. It shows nothing until the engine makes the first build and points the view at its table.
VIEW = "CREATE VIEW petstore_order_book AS SELECT * FROM petstore_order_book_shape"
VIEW_REVERSE = "DROP VIEW petstore_order_book"


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="OrderBookEntry",
            fields=[
                ("order_id", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("customer_id", models.CharField(max_length=255)),
                ("pet_id", models.CharField(max_length=100)),
                ("quantity", models.IntegerField()),
                ("total", models.DecimalField(decimal_places=2, max_digits=14)),
                ("status", models.CharField(max_length=20)),
                ("ordered_at", models.DateTimeField()),
                ("confirmed_at", models.DateTimeField(null=True)),
                ("last_sequence", models.BigIntegerField()),
            ],
            options={
                "db_table": "petstore_order_book",
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="User",
            fields=[
                ("id", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
                ("email", models.CharField(max_length=254)),
                ("phone", models.CharField(blank=True, max_length=30)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name="OrderBookShape",
            fields=[
                ("order_id", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("customer_id", models.CharField(max_length=255)),
                ("pet_id", models.CharField(max_length=100)),
                ("quantity", models.IntegerField()),
                ("total", models.DecimalField(decimal_places=2, max_digits=14)),
                ("status", models.CharField(max_length=20)),
                ("ordered_at", models.DateTimeField()),
                ("confirmed_at", models.DateTimeField(null=True)),
                ("last_sequence", models.BigIntegerField()),
            ],
            options={
                "db_table": "petstore_order_book_shape",
                "indexes": [
                    models.Index(fields=["customer_id", "-ordered_at"], name="petstore_orders_of_customer"),
                    models.Index(fields=["-ordered_at"], name="petstore_orders_newest"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Pet",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=examples.petstore.models._pet_id, max_length=100, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=100)),
                ("species", models.CharField(max_length=50)),
                ("breed", models.CharField(blank=True, max_length=100)),
                ("age", models.PositiveSmallIntegerField(blank=True, help_text="Years.", null=True)),
                ("price", models.DecimalField(decimal_places=2, max_digits=10)),
                ("category", models.CharField(blank=True, max_length=50)),
                ("description", models.CharField(blank=True, max_length=2000)),
                ("stock", models.IntegerField(default=1, help_text="How many are left.")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("stock__gte", 0)), name="petstore_pet_stock"),
                    models.CheckConstraint(condition=models.Q(("price__gt", 0)), name="petstore_pet_price"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=examples.petstore.models._order_id, max_length=100, primary_key=True, serialize=False
                    ),
                ),
                ("customer_id", models.CharField(max_length=255)),
                ("quantity", models.PositiveIntegerField()),
                ("total", models.DecimalField(decimal_places=2, max_digits=14)),
                ("special_instructions", models.CharField(blank=True, max_length=2000)),
                (
                    "status",
                    models.CharField(
                        choices=[("pending", "Pending"), ("confirmed", "Confirmed")], default="pending", max_length=10
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("confirmed_at", models.DateTimeField(blank=True, null=True)),
                ("pet", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="petstore.pet")),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("quantity__gte", 1)), name="petstore_order_quantity")
                ],
            },
        ),
        migrations.RunSQL(VIEW, VIEW_REVERSE),
    ]
