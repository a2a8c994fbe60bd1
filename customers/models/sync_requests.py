"""Writing requests to integrations: at most one in flight for each sync state."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from customers.models.sync import SyncState


class SyncRequestQuerySet(QuerySet["SyncRequest"]):
    """Sets of requests."""

    def in_flight(self) -> SyncRequestQuerySet:
        """Those whose outcome is not known."""
        return self.filter(resolved_at__isnull=True)


class SyncRequest(models.Model):
    """One writing request to an integration: frozen before the first send, resolved when its outcome is known."""

    class Method(models.TextChoices):
        CREATE = "create"
        UPDATE = "update"
        DELETE = "delete"

    class Outcome(models.TextChoices):
        IN_FLIGHT = "", "in flight"
        SUCCEEDED = "succeeded"
        ADOPTED = "adopted", "found by look-up"
        REFUSED = "refused"
        ABANDONED = "abandoned", "looked up, had not happened"

    state = models.ForeignKey(SyncState, on_delete=models.CASCADE, related_name="requests")
    uid = models.UUIDField(default=uuid7)
    generation = models.PositiveSmallIntegerField(default=1)
    method = models.CharField(max_length=8, choices=Method)
    body = models.JSONField(default=dict, blank=True, help_text="parameters exactly as they are sent")
    fields = models.JSONField(default=dict, blank=True, help_text="fields that the base takes over on success")
    first_sent_at = models.DateTimeField(db_default=Now(), help_text="clock of the database; the key's age")
    last_sent_at = models.DateTimeField(db_default=Now())
    resume = models.CharField(
        max_length=255, blank=True, default="", db_default="", help_text="where an interrupted look-up goes on"
    )
    sends = models.PositiveIntegerField(default=1)
    correlation_id = models.CharField(
        max_length=128, blank=True, default="", db_default="", help_text="of what made us send it"
    )
    traceparent = models.CharField(max_length=55, blank=True, default="", db_default="")
    resolved_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=16, choices=Outcome, blank=True, default="")
    error_code = models.CharField(max_length=64, blank=True, default="")
    error_message = models.TextField(blank=True, default="")

    objects = SyncRequestQuerySet.as_manager()

    class Meta:
        constraints = [
            # One request in flight per state, whatever workers believe about their leases.
            models.UniqueConstraint(
                fields=["state"], condition=Q(resolved_at__isnull=True), name="customers_syncrequest_in_flight_uniq"
            ),
            # Serves a webhook's look-up of the key that caused it.
            models.UniqueConstraint(fields=["uid", "generation"], name="customers_syncrequest_key_uniq"),
            models.CheckConstraint(
                condition=Q(resolved_at__isnull=True, outcome="") | Q(resolved_at__isnull=False) & ~Q(outcome=""),
                name="customers_syncrequest_resolved_has_outcome",
            ),
        ]
        indexes = [
            # The requests of a state, newest first. Serves the foreign key too.
            models.Index("state", F("id").desc(), name="syncrequest_by_state"),
            # The requests that came of one request or task, in their order.
            models.Index("correlation_id", "id", condition=~Q(correlation_id=""), name="syncrequest_by_correlation"),
            # The console's list of requests in flight, newest first; and the oldest of them, for alarms.
            models.Index(F("id").desc(), condition=Q(resolved_at__isnull=True), name="syncrequest_in_flight"),
            # The console's list by an outcome that is not the usual one.
            models.Index(
                "outcome",
                F("id").desc(),
                condition=Q(outcome__in=["adopted", "refused", "abandoned"]),
                name="syncrequest_by_outcome",
            ),
        ]
        verbose_name = "sync request"

    def __str__(self) -> str:
        return f"{self.method} {self.key}"

    @property
    def key(self) -> str:
        """The idempotency key: ``uid:generation``."""
        return f"{self.uid}:{self.generation}"
