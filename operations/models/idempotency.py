"""Idempotency keys: which requests were made, and how each was answered."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class IdempotencyKey(models.Model):
    """One key of one caller for one address.

    Without a status its request is in flight: the row was committed before the work began. The transaction that does
    the work locks the row and writes the answer into it, on the condition that ``token`` is still its own, so effect
    and answer are there together or not at all.

    An answer that was erased leaves its key and a status of 410, and no fingerprint, so that nobody can
    confirm by it what they guess was sent.
    """

    actor = models.CharField(max_length=200)
    method = models.CharField(max_length=10)
    route = models.CharField(max_length=500, help_text="The address without what its spellings differ in.")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of method, address, query and body.")
    token = models.UUIDField()
    lease_until = models.DateTimeField(help_text="In flight: nobody takes it over before, or while it is locked.")
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    headers = models.JSONField(default=dict, db_default={})
    body = models.BinaryField(default=b"", db_default=b"")
    subject = models.CharField(max_length=200, blank=True, default="", db_default="")
    correlation_id = models.CharField(max_length=128, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "operations_idempotency"
        default_permissions = ()
        constraints = [
            # One row for a key, however many requests carry it at once. Also serves every look-up.
            models.UniqueConstraint(fields=["actor", "key", "method", "route"], name="operations_idempotency_uniq"),
            models.CheckConstraint(
                condition=Q(fingerprint__regex="^[0-9a-f]{64}$"), name="operations_idempotency_fingerprint"
            ),
        ]
        indexes = [
            # Serves the clean-up.
            models.Index(fields=["expires_at"], name="operations_idempotency_expired"),
            # Serves the erasure of a person: the answers that speak of them.
            models.Index(fields=["subject"], condition=~Q(subject=""), name="operations_idempotency_about"),
            # Serves the life of a request.
            models.Index(
                fields=["correlation_id"], condition=~Q(correlation_id=""), name="operations_idempotency_cause"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.method} {self.route}"
