"""Locks that several processes agree on, as rows."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Lock(models.Model):
    """A lock that is held: whoever holds it gives its row back, or lets it run out.

    ``token`` comes from a sequence, so it grows with every taking of any lock: what its holder writes under it is
    refused as soon as somebody else has taken it (see ``operations.locks``).
    """

    kind = models.CharField(max_length=32, help_text="of what: customer, email, integration")
    key = models.CharField(max_length=200, help_text="which one; of personal data a digest")
    token = models.BigIntegerField()
    holder = models.CharField(max_length=200)
    taken_at = models.DateTimeField(db_default=Now())
    until = models.DateTimeField(null=True, blank=True, help_text="null: until its holder, a row itself, is done")
    contended = models.PositiveIntegerField(default=0, db_default=0, help_text="how often others found it taken")

    class Meta:
        default_permissions = ("view",)
        constraints = [
            # One holder at a time. Serves the taking, and the look of whoever must not write meanwhile.
            models.UniqueConstraint(fields=["kind", "key"], name="operations_lock_uniq"),
        ]
        indexes = [
            # Giving back all that a holder has.
            models.Index("holder", name="operations_lock_by_holder"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"
