"""Deliveries that did not go through at once, attempts, and the detours of the aggregates behind them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from outbox.errors import ErrorClass
from outbox.events import NAME_LENGTH
from outbox.models.subscription import Subscription


class DeliveryState(models.TextChoices):
    """Where a delivery stands; what went through at once has no delivery."""

    RETRYING = "retrying"
    DEAD = "dead"
    RESOLVED = "resolved"


class Resolution(models.TextChoices):
    """How a delivery ended: it went through, or a person decided that it need not."""

    DELIVERED = "delivered"
    SKIPPED = "skipped"
    REPLACED = "replaced"


OPEN = [DeliveryState.RETRYING, DeliveryState.DEAD]


class Delivery(models.Model):
    """An event that did not go through to a subscriber at once, with a copy of the event.

    A dead one either holds its aggregate back (its detour waits at it), or was passed over, as the subscriber's policy
    for the topic says.
    """

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
    attempts_before = models.IntegerField(
        default=0, db_default=0, help_text="Attempts made before a person last asked for a retry."
    )
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    error_class = models.CharField(max_length=15, choices=ErrorClass)
    code = models.CharField(max_length=100)
    message = models.TextField()
    traceback = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=64, help_text="The same for failures of the same kind.")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolution = models.CharField(max_length=10, choices=Resolution, blank=True, default="", db_default="")
    resolved_by = models.CharField(max_length=200, blank=True, default="", db_default="")
    resolved_reason = models.TextField(blank=True, default="", db_default="")

    class Meta:
        db_table = "outbox_delivery"
        verbose_name_plural = "deliveries"
        permissions = [
            ("retry_delivery", "Can retry deliveries"),
            ("skip_delivery", "Can skip deliveries"),
            ("edit_delivery", "Can edit an event and replay it"),
        ]
        constraints = [
            # One open delivery of an event per subscriber; also serves the status of an event.
            models.UniqueConstraint(
                fields=["event_id", "subscription"], condition=Q(state__in=OPEN), name="outbox_delivery_open_uniq"
            ),
            models.CheckConstraint(condition=Q(state__in=DeliveryState.values), name="outbox_delivery_state"),
            models.CheckConstraint(
                condition=Q(state="resolved", resolution__in=Resolution.values)
                | (~Q(state="resolved") & Q(resolution="")),
                name="outbox_delivery_resolution",
            ),
        ]
        indexes = [
            # Serves lists by state, newest first, and the counts of what is open.
            models.Index(fields=["state", "-id"], name="outbox_delivery_state_idx"),
            # Serves grouping of what is open by kind of failure.
            models.Index(fields=["fingerprint", "-id"], condition=Q(state__in=OPEN), name="outbox_delivery_kind"),
            # Serves the start of a detour: the open delivery of the event that it waits for.
            models.Index(
                fields=["aggregate_type", "aggregate_id", "sequence"],
                condition=Q(state__in=OPEN),
                name="outbox_delivery_aggregate",
            ),
            # Serves the timeline of one event, resolved deliveries included.
            models.Index(fields=["event_id"], name="outbox_delivery_event"),
            # Serves retention: what was resolved long ago.
            models.Index(fields=["resolved_at"], condition=Q(state="resolved"), name="outbox_delivery_resolved"),
            # Serves the erasure of an aggregate: those that outbox_delivery_aggregate does not hold.
            models.Index(
                fields=["aggregate_type", "aggregate_id"], condition=Q(state="resolved"), name="outbox_delivery_about"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subscription_id} {self.type} {self.aggregate_id} #{self.sequence}"

    @property
    def timeline(self) -> models.QuerySet[DeliveryAttempt]:
        """Every attempt to bring this event to this subscriber."""
        return DeliveryAttempt.objects.filter(event_id=self.event_id, subscriber=self.subscription_id)


class Outcome(models.TextChoices):
    """How an attempt ended."""

    FAILED = "failed"
    DELIVERED = "delivered"


class DeliveryAttempt(models.Model):
    """One attempt, append-only (a trigger refuses DELETE other than that of retention, and UPDATE other than that of an
    erasure, which may change the texts).

    Failures are always written, and so are successes after a failure; successes at once only while the subscriber's
    ``keep_successes`` is on. It names its subscriber and event and points at no row: it outlives both.
    """

    subscriber = models.CharField(max_length=100)
    event_id = models.BigIntegerField()
    number = models.IntegerField()
    outcome = models.CharField(max_length=10, choices=Outcome)
    error_class = models.CharField(max_length=15, choices=ErrorClass, blank=True)
    code = models.CharField(max_length=100, blank=True)
    message = models.TextField(blank=True)
    response = models.CharField(max_length=200, blank=True, help_text="What the other side answered, in short.")
    worker = models.CharField(max_length=100, blank=True)
    started_at = models.DateTimeField(help_text="By the database's clock, as exact as the duration.")
    seconds = models.FloatField(help_text="Of the call that it was part of.")

    class Meta:
        db_table = "outbox_attempt"
        constraints = [
            models.CheckConstraint(condition=Q(outcome__in=Outcome.values), name="outbox_attempt_outcome"),
        ]
        indexes = [
            # Serves the timeline of an event.
            models.Index(fields=["event_id", "id"], name="outbox_attempt_event"),
        ]

    def __str__(self) -> str:
        return f"{self.number}: {self.outcome} {self.code}".rstrip()


class Replacement(models.Model):
    """An edited event that stands in for one that could not be delivered; the original stays as it was."""

    subscriber = models.CharField(max_length=100)
    original_id = models.BigIntegerField(help_text="Of the event that could not be delivered.")
    event_id = models.BigIntegerField(unique=True, help_text="Of the event that was published instead.")
    diff = models.JSONField(help_text="What was changed: pointer, before, after.")
    actor = models.CharField(max_length=200)
    reason = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_replacement"
        indexes = [
            # Serves the page of the original.
            models.Index(fields=["original_id"], name="outbox_replacement_original"),
        ]

    def __str__(self) -> str:
        return f"{self.original_id} by {self.event_id}"


class Detour(models.Model):
    """An aggregate whose events wait, for one subscriber, until the event numbered ``next_sequence`` goes through.

    The owner of the lane makes, serves and deletes it, under the lane's epoch. A person's decisions make one, or change
    ``next_sequence`` and ``due``, under the lock of the lane's row (see ``outbox.deciding``).
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
