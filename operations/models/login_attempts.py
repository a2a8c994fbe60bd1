"""Attempts to log in, counted per address and name."""

from __future__ import annotations

from django.db import models


class LoginAttempts(models.Model):
    """How many attempts one address made on one name in the window under way.

    Kept in PostgreSQL rather than in Redis: a guard of passwords must not open when a cache is away.
    """

    key = models.CharField(max_length=64, primary_key=True)
    attempts = models.PositiveIntegerField()
    # Serves the clean-up of windows that are over.
    window_ends_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = "login attempts"
        verbose_name_plural = "login attempts"

    def __str__(self) -> str:
        return f"{self.attempts} attempts"
