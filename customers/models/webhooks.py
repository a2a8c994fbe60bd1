"""Messages of integrations, kept as they came."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q, QuerySet
from django.db.models.fields.json import KT
from django.db.models.functions import Now

from customers.models.sync_requests import SyncRequest


class WebhookQuerySet(QuerySet["Webhook"]):
    """Sets of webhooks."""

    def pending(self) -> WebhookQuerySet:
        """Those that were stored and not worked on yet."""
        return self.filter(processed_at__isnull=True)


class Webhook(models.Model):
    """A signed message of an integration, stored before anything is done about it."""

    class Outcome(models.TextChoices):
        PENDING = "pending"
        POKED = "poked", "had a sync state looked at"
        IGNORED = "ignored"

    integration = models.CharField(max_length=32)
    event_id = models.CharField(max_length=255)
    type = models.CharField(max_length=128)
    account = models.CharField(max_length=64, blank=True)
    livemode = models.BooleanField()
    remote_id = models.CharField(max_length=255, blank=True, help_text="what it is about")
    payload = models.JSONField()
    correlation_id = models.CharField(
        max_length=128, blank=True, default="", db_default="", help_text="of the request that brought it"
    )
    traceparent = models.CharField(max_length=55, blank=True, default="", db_default="")
    received_at = models.DateTimeField(db_default=Now())
    processed_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=16, choices=Outcome, default=Outcome.PENDING)
    reason = models.CharField(max_length=255, blank=True, help_text="why it was ignored")
    polled = models.BooleanField(default=False, db_default=False, help_text="no webhook brought it: it was asked for")
    caused_by = models.ForeignKey(
        SyncRequest,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        db_index=False,
        related_name="webhooks",
        help_text="the request of ours that it tells of",
    )

    objects = WebhookQuerySet.as_manager()

    class Meta:
        constraints = [
            # A message that is delivered twice, also at the same moment, is one row.
            models.UniqueConstraint(fields=["integration", "event_id"], name="customers_webhook_event_uniq"),
            models.CheckConstraint(
                condition=Q(outcome="pending", processed_at__isnull=True)
                | Q(outcome__in=["poked", "ignored"], processed_at__isnull=False),
                name="customers_webhook_processed_has_outcome",
            ),
        ]
        indexes = [
            # The claim of stored ones, oldest first; empty when nothing waits. Also the console's filter.
            models.Index("id", condition=Q(processed_at__isnull=True), name="webhook_pending"),
            # The console's filter of ignored ones, newest first.
            models.Index(F("id").desc(), condition=Q(outcome="ignored"), name="webhook_ignored"),
            # The webhooks of a remote record, newest first; the console's exact search.
            models.Index("remote_id", F("id").desc(), name="webhook_by_remote_id"),
            # The erasure: those that carry a customer's id where Stripe has it, under whatever record.
            models.Index(KT("payload__data__object__metadata__zenskar_id"), name="webhook_by_reference"),
            # The console's exact search by event id without the integration.
            models.Index("event_id", name="webhook_by_event_id"),
            # The webhooks that a request of ours caused, and that a request brought in. The first one serves the
            # foreign key too.
            models.Index("caused_by", condition=Q(caused_by__isnull=False), name="webhook_by_cause"),
            models.Index("correlation_id", condition=~Q(correlation_id=""), name="webhook_by_correlation"),
        ]
        verbose_name = "webhook"

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"
