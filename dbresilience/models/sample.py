"""Figures of the database, one row a minute."""

from __future__ import annotations

from django.db import models


class Sample(models.Model):
    """What the monitor measured at one instant; a figure that could not be measured is null."""

    # Unique: two samplers that run at once leave one row a minute.
    minute = models.DateTimeField(unique=True)
    figures = models.JSONField()

    class Meta:
        permissions = [("diagnose_sample", "Can run the diagnostics of the database")]

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M}"
