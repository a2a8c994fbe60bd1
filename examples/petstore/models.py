"""Pets, orders and users, and the shape of the order book."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone
from uuid_utils.compat import uuid7


def _pet_id() -> str:
    return f"pet_{uuid7().hex}"


def _order_id() -> str:
    return f"order_{uuid7().hex}"


class Pet(models.Model):
    """A pet, or several alike, for sale."""

    id = models.CharField(max_length=100, primary_key=True, default=_pet_id)
    name = models.CharField(max_length=100)
    species = models.CharField(max_length=50)
    breed = models.CharField(max_length=100, blank=True)
    age = models.PositiveSmallIntegerField(null=True, blank=True, help_text="Years.")
    price = models.DecimalField(max_digits=10, decimal_places=2)
    category = models.CharField(max_length=50, blank=True)
    description = models.CharField(max_length=2000, blank=True)
    stock = models.IntegerField(default=1, help_text="How many are left.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            # Two buyers of the last one: the second one's UPDATE finds too few, and could not write less than none.
            models.CheckConstraint(condition=Q(stock__gte=0), name="petstore_pet_stock"),
            models.CheckConstraint(condition=Q(price__gt=0), name="petstore_pet_price"),
        ]

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """An order, which has taken its pets when it exists."""

    class Status(models.TextChoices):
        PENDING = "pending"
        CONFIRMED = "confirmed"
        SHIPPED = "shipped"

    id = models.CharField(max_length=100, primary_key=True, default=_order_id)
    customer_id = models.CharField(max_length=255)
    pet = models.ForeignKey(Pet, on_delete=models.PROTECT)
    quantity = models.PositiveIntegerField()
    total = models.DecimalField(max_digits=14, decimal_places=2)
    special_instructions = models.CharField(max_length=2000, blank=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    created_at = models.DateTimeField(default=timezone.now)
    confirmed_at = models.DateTimeField(null=True, blank=True)
    shipped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(quantity__gte=1), name="petstore_order_quantity"),
            # Shipped is what has a moment of shipping, and nothing else.
            models.CheckConstraint(
                condition=Q(status="shipped", shipped_at__isnull=False)
                | (~Q(status="shipped") & Q(shipped_at__isnull=True)),
                name="petstore_order_shipped",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class User(models.Model):
    """Somebody who registered."""

    id = models.CharField(max_length=100, primary_key=True)
    name = models.CharField(max_length=100)
    email = models.CharField(max_length=254)
    phone = models.CharField(max_length=30, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.name


class OrderBookRow(models.Model):
    """An order as the order book shows it."""

    order_id = models.CharField(max_length=100, primary_key=True)
    customer_id = models.CharField(max_length=255)
    pet_id = models.CharField(max_length=100)
    quantity = models.IntegerField()
    total = models.DecimalField(max_digits=14, decimal_places=2)
    status = models.CharField(max_length=20)
    ordered_at = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True)
    last_sequence = models.BigIntegerField()

    class Meta:
        abstract = True


class OrderBookShape(OrderBookRow):
    """The empty table that each build's table is made like."""

    class Meta:
        db_table = "petstore_order_book_shape"
        indexes = [
            # Serves the orders of one customer, newest first.
            models.Index(fields=["customer_id", "-ordered_at"], name="petstore_orders_of_customer"),
            # Serves all orders, newest first.
            models.Index(fields=["-ordered_at"], name="petstore_orders_newest"),
        ]


class OrderBookEntry(OrderBookRow):
    """The order book as readers see it: a view on the build that is live."""

    class Meta:
        managed = False
        db_table = "petstore_order_book"
