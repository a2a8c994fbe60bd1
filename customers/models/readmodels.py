"""The tables of this app's read models: the shapes that builds are made of, and what readers see."""

from __future__ import annotations

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
from django.db import models

SHAPE = "The empty table that the engine makes each build's table like."


class DirectoryRow(models.Model):
    """A customer as the directory shows it."""

    customer_id = models.UUIDField(primary_key=True)
    name = models.TextField(null=True)
    email = models.TextField(null=True)
    phone = models.TextField(null=True)
    version = models.IntegerField()
    origin = models.CharField(max_length=255)
    updated_at = models.DateTimeField()
    last_sequence = models.BigIntegerField()
    document = SearchVectorField(null=True)

    class Meta:
        abstract = True


class DirectoryShape(DirectoryRow):
    """The shape of the directory's tables; always empty."""

    class Meta:
        db_table = "customers_directory_shape"
        db_table_comment = SHAPE
        indexes = [
            # Serves the search by words.
            GinIndex(fields=["document"], name="customers_directory_words"),
            # Serves the list without a search, newest change first.
            models.Index(fields=["-updated_at", "-customer_id"], name="customers_directory_recent"),
        ]


class DirectoryEntry(DirectoryRow):
    """The directory as readers see it: a view on the build that is live."""

    class Meta:
        managed = False
        db_table = "customers_directory"


class ActivityRow(models.Model):
    """How many events of one type and origin there were on a day (UTC)."""

    pk = models.CompositePrimaryKey("day", "type", "origin")
    day = models.DateField()
    type = models.CharField(max_length=100)
    origin = models.CharField(max_length=255)
    events = models.BigIntegerField()

    class Meta:
        abstract = True


class ActivityShape(ActivityRow):
    """The shape of the activity's tables; always empty."""

    class Meta:
        db_table = "customers_activity_shape"
        db_table_comment = SHAPE


class ActivityDay(ActivityRow):
    """The activity as readers see it: a view on the build that is live."""

    class Meta:
        managed = False
        db_table = "customers_activity"
