"""What was measured of a build, by minute."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models

from projections.models.build import Build


class Minute(models.Model):
    """One minute of a build: what its runners did, and what a sample at its end found.

    ``buckets`` counts batches by how long they took; see ``projections.measuring``.
    """

    build = models.ForeignKey(Build, on_delete=models.CASCADE)
    minute = models.DateTimeField()
    events = models.BigIntegerField(default=0, db_default=0)
    failures = models.BigIntegerField(default=0, db_default=0, help_text="Attempts that failed.")
    batches = models.IntegerField(default=0, db_default=0)
    apply_ms = models.FloatField(default=0, db_default=0)
    buckets = ArrayField(models.IntegerField(), default=list)
    status = models.CharField(max_length=10, blank=True, default="", db_default="")
    active_failures = models.IntegerField(null=True, blank=True)
    lag_seconds = models.FloatField(null=True, blank=True)
    lag_events = models.BigIntegerField(null=True, blank=True)

    class Meta:
        db_table = "projections_minute"
        constraints = [
            # Also serves the charts, by range of minutes.
            models.UniqueConstraint(fields=["build", "minute"], name="projections_minute_uniq")
        ]

    def __str__(self) -> str:
        return f"{self.build_id} {self.minute:%Y-%m-%d %H:%M}"
