"""When builds had passed a position: the small history behind the moment at which an event took effect."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from projections.models.build import Build


class Mark(models.Model):
    """A build had applied everything up to a position by then.

    At most one row a second of each build. A moment read from it is late by a second or so, and never early.
    """

    build = models.ForeignKey(Build, on_delete=models.CASCADE)
    position = models.BigIntegerField()
    passed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "projections_mark"
        default_permissions = ()
        constraints = [
            # Also serves the search for the first row at or past a position.
            models.UniqueConstraint(fields=["build", "position"], name="projections_mark_uniq")
        ]
        indexes = [
            # Serves retention.
            models.Index(fields=["passed_at"], name="projections_mark_passed"),
        ]

    def __str__(self) -> str:
        return f"{self.build_id} {self.position}"
