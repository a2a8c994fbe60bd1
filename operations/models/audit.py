"""The audit trail: who did what, when; rows that are only ever added."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class AuditEntry(models.Model):
    """One thing that somebody did.

    A trigger (see the migration) refuses UPDATE and DELETE, so that neither a bug nor a console can rewrite history.
    Retention alone may delete, in a transaction that says so: ``SET LOCAL zenskar.audit_retention = 'on'``. The erasure
    of a person alone may change, and of an entry its detail alone: ``SET LOCAL zenskar.erasure = 'on'``. This guards
    against accidents and against our own code; whoever owns the table can always drop the trigger, so a trail that must
    stand up against database administrators belongs into another system as well (every entry is also logged).
    """

    at = models.DateTimeField(db_default=Now())
    actor = models.CharField(max_length=200)
    action = models.CharField(max_length=100)
    target = models.CharField(max_length=200, blank=True)
    detail = models.JSONField(default=dict, blank=True)
    correlation_id = models.CharField(max_length=128, blank=True)

    class Meta:
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        indexes = [
            # "What happened to this customer?": the console's and the timeline's look-up by target.
            models.Index(fields=["target", "-id"], name="operations_audit_target"),
            # "What did this key or person do?"
            models.Index(fields=["actor", "-id"], name="operations_audit_actor"),
            # "What else belongs to this request?"
            models.Index(fields=["correlation_id"], name="operations_audit_correlation"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target} by {self.actor}".replace("  ", " ")
