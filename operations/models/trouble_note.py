"""What people wrote about a kind of trouble."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class TroubleNote(models.Model):
    """Who looks after a group of troubles, what is known of it, and until when nobody needs to be told again."""

    source = models.CharField(max_length=40)
    fingerprint = models.CharField(max_length=200)
    owner = models.CharField(max_length=200, blank=True)
    note = models.TextField(blank=True)
    snoozed_until = models.DateTimeField(null=True, blank=True)
    updated_by = models.CharField(max_length=200)
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ("view",)
        permissions = [("write_troublenote", "Can write notes on troubles")]
        constraints = [
            # One note for a group; also serves the look-up of those of a page.
            models.UniqueConstraint(fields=["source", "fingerprint"], name="operations_troublenote_uniq"),
            models.CheckConstraint(condition=~Q(fingerprint=""), name="operations_troublenote_fingerprint"),
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.fingerprint}"
