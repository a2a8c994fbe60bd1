"""What a person must decide between a customer and its remote record."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from customers.models.sync import SyncState


class ConflictQuerySet(QuerySet["Conflict"]):
    """Sets of conflicts."""

    def open(self) -> ConflictQuerySet:
        """Those that wait for a person."""
        return self.filter(status=Conflict.Status.OPEN)


class Conflict(models.Model):
    """Something between a customer and its remote record that rules cannot decide."""

    class Kind(models.TextChoices):
        FIELD = "field", "both sides changed a field"
        EMAIL_TAKEN = "email_taken", "another customer has this e-mail"
        REFUSED_HERE = "refused_here", "the catalogue cannot hold the remote value"
        SAME_EMAIL = "same_email", "an unlinked remote record has this e-mail"
        SEVERAL = "several", "several remote records carry this customer's id"
        DELETE_REFUSED = "delete_refused", "the remote record has something live"
        REMOTE_DELETED = "remote_deleted", "deleted remotely only"
        REMOTE_MISSING = "remote_missing", "the integration does not know the remote id"
        NAMES_ANOTHER = "names_another", "the remote record carries the id of a customer that has none"
        LINKED_ELSEWHERE = "linked_elsewhere", "the remote record belongs to another customer"

    class Status(models.TextChoices):
        OPEN = "open"
        RESOLVED = "resolved"

    state = models.ForeignKey(SyncState, on_delete=models.CASCADE, related_name="conflicts")
    kind = models.CharField(max_length=16, choices=Kind)
    field = models.CharField(max_length=255, blank=True, help_text="as in the base; metadata as metadata.<key>")
    base = models.JSONField(null=True, blank=True)
    ours = models.JSONField(null=True, blank=True)
    theirs = models.JSONField(null=True, blank=True)
    detail = models.TextField(blank=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.OPEN)
    resolution = models.CharField(max_length=64, blank=True, help_text="how it ended: by whom or by which rule")
    opened_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, blank=True)

    objects = ConflictQuerySet.as_manager()

    class Meta:
        constraints = [
            # One open conflict per question; a second look updates it.
            models.UniqueConstraint(
                fields=["state", "kind", "field"], condition=Q(status="open"), name="customers_conflict_open_uniq"
            ),
            models.CheckConstraint(
                condition=Q(status="open", resolved_at__isnull=True) | Q(status="resolved", resolved_at__isnull=False),
                name="customers_conflict_resolved_has_time",
            ),
        ]
        indexes = [
            # The console's list of open conflicts, newest first.
            models.Index(F("id").desc(), condition=Q(status="open"), name="conflict_open"),
            # The conflicts of a state, newest first. Serves the foreign key too.
            models.Index("state", F("id").desc(), name="conflict_by_state"),
        ]
        permissions = [("resolve_conflict", "Can decide whose value of a conflict holds")]
        verbose_name = "conflict"

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.field}" if self.field else self.get_kind_display()
