"""Builds: one set of tables of a projection, with the checkpoint that tells how far they are."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.db.models.functions import Now


class BuildState(models.TextChoices):
    """What a build is for.

    live: readers see it.
    building: it is being filled, to take the place of the live one.
    standby: readers saw it before; kept up to date until it is retired, for an instant way back.
    retired: its tables are gone.
    """

    LIVE = "live"
    BUILDING = "building"
    STANDBY = "standby"
    RETIRED = "retired"


FED: Final = [BuildState.LIVE, BuildState.BUILDING, BuildState.STANDBY]


class Build(models.Model):
    """One set of tables of a projection, and its checkpoint.

    Every event up to ``cursor`` is applied, or has an open ``Failure``, or waits behind a ``Detour``. The row's lock
    is held by whoever changes the tables, so rows and checkpoint always fit. ``epoch`` grows with each claim; a runner
    that lost its lease changes nothing.
    """

    projection = models.CharField(max_length=100)
    version = models.IntegerField()
    state = models.CharField(max_length=10, choices=BuildState)
    cursor = models.BigIntegerField(default=0, db_default=0, help_text="The last position that is done with.")
    last_event_id = models.BigIntegerField(null=True, blank=True)
    last_event_type = models.CharField(max_length=100, blank=True, default="", db_default="")
    events_processed = models.BigIntegerField(default=0, db_default=0)
    failures_seen = models.BigIntegerField(default=0, db_default=0, help_text="Attempts that failed.")
    checkpoint_at = models.DateTimeField(null=True, blank=True)
    owner = models.CharField(max_length=100, blank=True, default="", db_default="")
    epoch = models.BigIntegerField(default=0, db_default=0)
    lease_until = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(
        null=True, blank=True, help_text="When a runner last looked whether there is something to do."
    )
    strikes = models.SmallIntegerField(
        default=0, db_default=0, help_text="Leases that ended without being given back, until that place is passed."
    )
    attempts = models.SmallIntegerField(
        default=0, db_default=0, help_text="Starts of work on its next event alone, counted after such leases."
    )
    created_at = models.DateTimeField(db_default=Now())
    switched_at = models.DateTimeField(null=True, blank=True, help_text="When readers were switched to it last.")
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "projections_build"
        default_permissions = ("view",)
        permissions = [
            ("replay_build", "Can replay read models"),
            ("reset_build", "Can reset read models"),
            ("rebuild_build", "Can rebuild read models and switch readers"),
        ]
        constraints = [
            # Also serve the search for the build of a projection in each of these states.
            models.UniqueConstraint(
                fields=["projection"], condition=models.Q(state="live"), name="projections_build_one_live"
            ),
            models.UniqueConstraint(
                fields=["projection"], condition=models.Q(state="building"), name="projections_build_one_building"
            ),
            models.UniqueConstraint(
                fields=["projection"], condition=models.Q(state="standby"), name="projections_build_one_standby"
            ),
            models.CheckConstraint(condition=models.Q(state__in=BuildState.values), name="projections_build_state"),
        ]

    def __str__(self) -> str:
        return f"{self.projection} {self.version} #{self.pk} ({self.state})"
