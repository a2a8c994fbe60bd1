"""Alerts and the notices that tell of them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class AlertLevel(models.TextChoices):
    """How bad it is."""

    WARNING = "warning"
    CRITICAL = "critical"


class Alert(models.Model):
    """Something that is wrong now, or was: one row for each key and time that it lasted."""

    key = models.CharField(max_length=200)
    source = models.CharField(max_length=60)
    level = models.CharField(max_length=10, choices=AlertLevel)
    title = models.CharField(max_length=200)
    message = models.CharField(max_length=1000, blank=True)
    raised_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), help_text="When it was found to be so last.")
    noticed_at = models.DateTimeField(null=True, blank=True, help_text="When people were told of it last.")
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        default_permissions = ("view",)
        constraints = [
            # One open alert of a key, whoever checks at the same time. Also serves the check.
            models.UniqueConstraint(fields=["key"], condition=Q(ended_at=None), name="operations_alert_open_uniq"),
            models.CheckConstraint(condition=Q(level__in=AlertLevel.values), name="operations_alert_level"),
        ]

    def __str__(self) -> str:
        return self.title


class AlertNotice(models.Model):
    """One message about an alert by one channel: to be sent, sent, or given up."""

    class Kind(models.TextChoices):
        RAISED = "raised"
        REMINDED = "reminded"
        ENDED = "ended"

    class State(models.TextChoices):
        PENDING = "pending"
        SENT = "sent"
        FAILED = "failed"

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="notices")
    kind = models.CharField(max_length=10, choices=Kind)
    channel = models.CharField(max_length=20)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=Now(), help_text="While it is being sent, the end of the lease.")
    error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        default_permissions = ("view",)
        indexes = [
            # Serves the claim of what is to be sent.
            models.Index(fields=["next_attempt_at"], condition=Q(state="pending"), name="operations_notice_due"),
        ]

    def __str__(self) -> str:
        return f"{self.alert_id} {self.kind} {self.channel}"
