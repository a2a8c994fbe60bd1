"""Deliveries that did not go through at once, their attempts, and the detours of the aggregates behind them."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from outbox.errors import ErrorClass
from outbox.events import NAME_LENGTH
from outbox.models.subscription import Subscription


class DeliveryState(models.TextChoices):
    """Where a delivery stands; what went through at once has no delivery."""

    RETRYING = "retrying"
    DEAD = "dead"
    RESOLVED = "resolved"


OPEN = [DeliveryState.RETRYING, DeliveryState.DEAD]


class Delivery(models.Model):
    """An event that did not go through to a subscriber at once, with a copy of the event."""

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE)
    event_id = models.BigIntegerField()
    position = models.BigIntegerField()
    lane = models.SmallIntegerField()
    topic = models.CharField(max_length=150)
    type = models.CharField(max_length=100)
    aggregate_type = models.CharField(max_length=100)
    aggregate_id = models.CharField(max_length=NAME_LENGTH)
    sequence = models.BigIntegerField()
    envelope = models.JSONField()
    state = models.CharField(max_length=10, choices=DeliveryState)
    attempts = models.IntegerField()
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    error_class = models.CharField(max_length=15, choices=ErrorClass)
    code = models.CharField(max_length=100)
    message = models.TextField()
    traceback = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=64, help_text="The same for failures of the same kind.")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "outbox_delivery"
        verbose_name_plural = "deliveries"
        constraints = [
            # One open delivery of an event per subscriber; also serves the status of an event.
            models.UniqueConstraint(
                fields=["event_id", "subscription"],
                condition=models.Q(state__in=OPEN),
                name="outbox_delivery_open_uniq",
            ),
            models.CheckConstraint(condition=models.Q(state__in=DeliveryState.values), name="outbox_delivery_state"),
        ]
        indexes = [
            # Serves lists by state, newest first, and the counts of what is open.
            models.Index(fields=["state", "-id"], name="outbox_delivery_state_idx"),
            # Serves grouping of what is open by kind of failure.
            models.Index(
                fields=["fingerprint", "-id"], condition=models.Q(state__in=OPEN), name="outbox_delivery_kind"
            ),
            # Serves the start of a detour: the open delivery of the event that it waits for.
            models.Index(
                fields=["aggregate_type", "aggregate_id", "sequence"],
                condition=models.Q(state__in=OPEN),
                name="outbox_delivery_aggregate",
            ),
            # Serves the timeline of one event, resolved deliveries included.
            models.Index(fields=["event_id"], name="outbox_delivery_event"),
        ]

    def __str__(self) -> str:
        return f"{self.subscription_id} {self.type} {self.aggregate_id} #{self.sequence}"


class DeliveryAttempt(models.Model):
    """One failed attempt, append-only: the operator's timeline."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="timeline")
    number = models.IntegerField()
    error_class = models.CharField(max_length=15, choices=ErrorClass)
    code = models.CharField(max_length=100)
    message = models.TextField()
    made_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_attempt"

    def __str__(self) -> str:
        return f"{self.number}: {self.code}"


class Detour(models.Model):
    """An aggregate whose events wait, for one subscriber, until the event numbered ``next_sequence`` goes through.

    Only the owner of the lane makes, serves and deletes it, under the lane's epoch. Others may change ``due``.
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE)
    lane = models.SmallIntegerField()
    aggregate_type = models.CharField(max_length=100)
    aggregate_id = models.CharField(max_length=NAME_LENGTH)
    next_sequence = models.BigIntegerField()
    due = models.DateTimeField(null=True, blank=True, help_text="Null: not before a person says so.")
    started = models.BooleanField(
        default=False, db_default=False, help_text="Being served; or the worker died while it served it."
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_detour"
        constraints = [
            # Also serves the status of an event.
            models.UniqueConstraint(
                fields=["aggregate_type", "aggregate_id", "subscription"], name="outbox_detour_uniq"
            )
        ]
        indexes = [
            # Serves the owner's question which detours of its lanes are due.
            models.Index(fields=["subscription", "lane", "due"], name="outbox_detour_due")
        ]

    def __str__(self) -> str:
        return f"{self.subscription_id} {self.aggregate_type} {self.aggregate_id}"
