"""Deadlocks that were seen."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Deadlock(models.Model):
    """One deadlock, told by its victim: what it held, and what it waited for.

    Statements are normalised: they hold no value. ``held`` is read from what the other side was waiting for, or, when
    that session was already gone, from what the victim had done before in its transaction.
    """

    at = models.DateTimeField()
    # Sorted; one element when both sides locked rows of the same table, empty when no table is known.
    tables = ArrayField(models.CharField(max_length=130), default=list)
    held_table = models.CharField(max_length=130, blank=True)
    held_statement = models.CharField(max_length=500, blank=True)
    waited_table = models.CharField(max_length=130, blank=True)
    waited_statement = models.CharField(max_length=500, blank=True)
    other_statement = models.CharField(max_length=500, blank=True, help_text="What the other side waited with.")
    # Of the pair of tables and statements.
    fingerprint = models.CharField(max_length=64)
    processes = models.PositiveSmallIntegerField(help_text="Sessions in the circle.")
    locks = models.JSONField(default=list, help_text="Who waited for which kind of lock.")
    code = models.CharField(max_length=300, blank=True, help_text="Where the victim's statement was run.")

    class Meta:
        indexes = [
            # "What happened since yesterday?", and deleting what is older than a week.
            models.Index(fields=["-at"], name="dbresilience_deadlock_at"),
        ]

    def __str__(self) -> str:
        return f"{' and '.join(self.tables) or 'unknown tables'} at {self.at:%Y-%m-%d %H:%M:%S}"
