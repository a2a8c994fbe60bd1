"""Operations: long actions of operators, with their items and what became of each."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now


class OperationState(models.TextChoices):
    """Where an operation stands."""

    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    FAILED = "failed"


FINAL: Final = (OperationState.CANCELLED, OperationState.COMPLETED, OperationState.FAILED)

# Items that were begun and have no outcome yet: they are looked after whatever became of the operation.
IN_FLIGHT: Final = Q(begun__gt=F("succeeded") + F("failed") + F("skipped"))


class OperationQuerySet(QuerySet["Operation"]):
    """Sets of operations."""

    def open(self) -> OperationQuerySet:
        """Those that have not ended."""
        return self.exclude(state__in=FINAL)


class Operation(models.Model):
    """A long action on everything that a filter matches: planned, then carried out item by item.

    The filter is frozen when it is planned; the items are written down when it starts. Whoever holds the lease carries
    out items in the order of their ids: all of them up to ``begun_through`` were begun. Each write of a holder is
    conditional on ``lease_token``, which grows with each claim, so a worker that lost its lease changes nothing.
    """

    kind = models.CharField(max_length=60)
    filter = models.JSONField()
    reason = models.CharField(max_length=500)
    actor = models.CharField(max_length=200)
    correlation_id = models.CharField(max_length=128, blank=True)
    state = models.CharField(max_length=10, choices=OperationState, default=OperationState.PLANNED)
    note = models.CharField(max_length=500, blank=True, help_text="Why it is in this state.")

    eligible = models.BigIntegerField(help_text="Items that the plan counted.")
    ineligible = models.JSONField(default=dict, help_text="How many were not eligible, by why.")

    canary = models.PositiveIntegerField(default=0, help_text="So many first; go on only if they went well.")
    canary_passed = models.BooleanField(default=False)
    rate = models.FloatField(null=True, blank=True, help_text="Items a second; empty is as fast as it goes.")
    ramp_seconds = models.PositiveIntegerField(default=0, help_text="From a tenth of the rate to all of it.")
    ramp_from = models.DateTimeField(null=True, blank=True)
    stop_error_rate = models.FloatField(default=0.5, help_text="Pauses by itself above that share of failures.")
    tokens = models.FloatField(default=0)
    refilled_at = models.DateTimeField(db_default=Now())

    collected = models.BooleanField(default=False, help_text="All items are written down.")
    collected_through = models.CharField(max_length=255, blank=True)
    items = models.BigIntegerField(default=0)
    begun_through = models.BigIntegerField(default=0)
    begun = models.BigIntegerField(default=0)
    succeeded = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)
    recent_ended = models.FloatField(default=0, help_text="Of late; older ones count less and less.")
    recent_failed = models.FloatField(default=0)

    lease_owner = models.CharField(max_length=128, blank=True)
    lease_token = models.BigIntegerField(default=0)
    lease_until = models.DateTimeField(db_default=Now())
    next_step_at = models.DateTimeField(db_default=Now())
    batch = models.PositiveIntegerField(default=10, help_text="Items of the next batch, by how long the last took.")
    strikes = models.PositiveSmallIntegerField(default=0, help_text="Leases that ended without being given back.")
    careful_through = models.BigIntegerField(default=0, help_text="Small batches until so many were begun.")

    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    updated_at = models.DateTimeField(db_default=Now())

    objects = OperationQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        permissions = [
            ("plan_operation", "Can plan operations"),
            ("start_operation", "Can start operations"),
            ("pause_operation", "Can pause operations"),
            ("resume_operation", "Can resume operations"),
            ("cancel_operation", "Can cancel operations"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=OperationState.values), name="operations_operation_state"),
            models.CheckConstraint(condition=~Q(reason=""), name="operations_operation_reason"),
            models.CheckConstraint(condition=Q(rate=None) | Q(rate__gt=0), name="operations_operation_rate"),
            models.CheckConstraint(
                condition=Q(stop_error_rate__gt=0, stop_error_rate__lte=1), name="operations_operation_stop"
            ),
            models.CheckConstraint(
                condition=Q(state__in=FINAL, finished_at__isnull=False)
                | (~Q(state__in=FINAL) & Q(finished_at__isnull=True)),
                name="operations_operation_finished",
            ),
            # Nothing is begun that is not written down, and nothing ends that was not begun, or ends twice.
            models.CheckConstraint(
                condition=Q(begun__lte=F("items"), begun__gte=F("succeeded") + F("failed") + F("skipped")),
                name="operations_operation_counts",
            ),
        ]
        indexes = [
            # Serves the claim: what is to be worked on, longest due first.
            models.Index(
                fields=["next_step_at"],
                condition=Q(state=OperationState.RUNNING) | IN_FLIGHT,
                name="operations_operation_due",
            ),
            # Serves lists by state, newest first.
            models.Index(fields=["state", "-id"], name="operations_operation_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def ended(self) -> int:
        """Items that have an outcome."""
        return self.succeeded + self.failed + self.skipped

    @property
    def in_flight(self) -> int:
        """Items that were begun and have no outcome yet."""
        return self.begun - self.ended

    @property
    def is_final(self) -> bool:
        """Whether nothing can change its state any more."""
        return self.state in FINAL


class ItemState(models.TextChoices):
    """What became of an item."""

    PENDING = "pending"
    STARTED = "started"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"


class OperationItem(models.Model):
    """One thing that an operation acts upon."""

    operation = models.ForeignKey(Operation, on_delete=models.CASCADE, related_name="rows")
    key = models.CharField(max_length=255, help_text="Which thing, in the words of the operation's kind.")
    data = models.JSONField(null=True, blank=True)
    state = models.CharField(max_length=10, choices=ItemState, default=ItemState.PENDING, db_default=ItemState.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    code = models.CharField(max_length=100, blank=True, default="", db_default="")
    message = models.CharField(max_length=1000, blank=True, default="", db_default="")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "operations_item"
        default_permissions = ("view",)
        constraints = [
            # A thing is one item of an operation, however often its page is written down.
            models.UniqueConstraint(fields=["operation", "key"], name="operations_item_uniq"),
            models.CheckConstraint(condition=Q(state__in=ItemState.values), name="operations_item_state"),
        ]
        indexes = [
            # Serves the next items of a batch, and the list of all.
            models.Index(fields=["operation", "id"], name="operations_item_order"),
            # Serves the items in flight, which the holder looks after, and the lists of what did not succeed.
            models.Index(
                fields=["operation", "state", "id"],
                condition=~Q(state__in=(ItemState.PENDING, ItemState.SUCCEEDED)),
                name="operations_item_odd",
            ),
        ]

    def __str__(self) -> str:
        return self.key
