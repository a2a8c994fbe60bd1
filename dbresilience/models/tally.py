"""Counts of what happened, in spans of ten minutes, added up over all processes."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Tally(models.Model):
    """How often something happened in one span, and how long it took."""

    span = models.DateTimeField(help_text="Start of the ten minutes.")
    name = models.CharField(max_length=20, help_text="One of TallyName.")
    key = models.CharField(max_length=500, blank=True)
    count = models.BigIntegerField()
    microseconds = models.BigIntegerField(default=0)
    slowest = models.BigIntegerField(default=0, help_text="Microseconds of the slowest one.")

    class Meta:
        verbose_name = "tally"
        verbose_name_plural = "tallies"
        constraints = [
            # The upsert of the recorder relies on it; and serves the sums over the last day, which name a name.
            models.UniqueConstraint(fields=["name", "span", "key"], name="dbresilience_tally_uniq"),
        ]
        indexes = [
            # "Delete what is older than a week."
            models.Index(fields=["span"], name="dbresilience_tally_span"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.key}: {self.count}"


class ViolationTally(models.Model):
    """How often a constraint was violated in one span. Holds names of the catalogue, never a value of a row."""

    span = models.DateTimeField(help_text="Start of the ten minutes.")
    kind = models.CharField(max_length=20)
    table = models.CharField(max_length=130, blank=True)
    columns = ArrayField(models.CharField(max_length=63), default=list)
    # Empty for NOT NULL, where the column names it.
    constraint = models.CharField(max_length=63, blank=True)
    count = models.BigIntegerField()
    last_at = models.DateTimeField()

    class Meta:
        verbose_name = "constraint violations"
        verbose_name_plural = "constraint violations"
        constraints = [
            models.UniqueConstraint(
                fields=["span", "kind", "table", "constraint", "columns"], name="dbresilience_violation_uniq"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.constraint or self.columns} on {self.table}: {self.count}"
