"""Failures: events that could not be applied, their attempts, and the aggregates that wait behind them."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.db.models.functions import Now

from outbox.events import NAME_LENGTH
from projections.errors import ErrorClass
from projections.models.build import Build


class FailureState(models.TextChoices):
    """Where a failure stands.

    retrying: it is tried again by itself.
    manual: the ladder has ended; a person decides.
    resolved: its aggregate went on.
    """

    RETRYING = "retrying"
    MANUAL = "manual"
    RESOLVED = "resolved"


class Strategy(models.TextChoices):
    """How a failure is resolved."""

    RETRY = "retry", "try the event again"
    SKIP = "skip", "go on without this event"
    MANUAL_FIX = "manual_fix", "the rows were put right by hand: go on without this event"
    COMPENSATE = "compensate", "call a registered function in place of this event"
    REBUILD_AGGREGATE = "rebuild_aggregate", "compute the rows of the aggregate anew from the log"


ACTIVE: Final = [FailureState.RETRYING, FailureState.MANUAL]
PASSED_OVER: Final = [Strategy.SKIP, Strategy.MANUAL_FIX, Strategy.COMPENSATE]
PUT_RIGHT: Final = [Strategy.MANUAL_FIX, Strategy.COMPENSATE]
"""Those after which rows hold what does not follow from the log."""


class Failure(models.Model):
    """An event that could not be applied."""

    build = models.ForeignKey(Build, on_delete=models.CASCADE)
    projection = models.CharField(max_length=100)
    event_id = models.BigIntegerField()
    position = models.BigIntegerField()
    event_type = models.CharField(max_length=100)
    topic = models.CharField(max_length=150)
    aggregate_type = models.CharField(max_length=100)
    aggregate_id = models.CharField(max_length=NAME_LENGTH)
    sequence = models.BigIntegerField()
    error_class = models.CharField(max_length=15, choices=ErrorClass)
    code = models.CharField(max_length=100)
    message = models.TextField()
    traceback = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=64, help_text="The same for failures of the same kind.")
    attempts = models.IntegerField()
    state = models.CharField(max_length=10, choices=FailureState)
    next_retry_at = models.DateTimeField(null=True, blank=True)
    first_failed_at = models.DateTimeField(db_default=Now())
    last_failed_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, blank=True)
    strategy = models.CharField(
        max_length=20, choices=Strategy, blank=True, default="", db_default="", help_text="Empty: a retry went through."
    )
    resolution = models.TextField(blank=True, default="", db_default="", help_text="The operator's note.")
    resolved_by = models.CharField(max_length=200, blank=True, default="", db_default="")

    class Meta:
        db_table = "projections_failure"
        default_permissions = ("view",)
        permissions = [
            ("resolve_failure", "Can resolve failures of read models"),
            ("see_failure_detail", "Can see messages and tracebacks of failures"),
        ]
        constraints = [
            # An aggregate waits behind one event at a time; also serves the count of a build's active failures.
            models.UniqueConstraint(
                fields=["build", "aggregate_type", "aggregate_id"],
                condition=models.Q(state__in=ACTIVE),
                name="projections_failure_active_uniq",
            ),
            models.CheckConstraint(condition=models.Q(state__in=FailureState.values), name="projections_failure_state"),
            # A fix by hand leaves no trace but this note.
            models.CheckConstraint(
                condition=~models.Q(strategy="manual_fix") | ~models.Q(resolution=""),
                name="projections_failure_fix_has_note",
            ),
        ]
        indexes = [
            # Serves lists by state, newest first, of one projection.
            models.Index(fields=["projection", "state", "-id"], name="projections_failure_list"),
            # Serves grouping of what is active by kind of failure.
            models.Index(
                fields=["fingerprint", "-id"], condition=models.Q(state__in=ACTIVE), name="projections_failure_kind"
            ),
            # Serves the life of one event, and the events that a rebuild of an aggregate passes over.
            models.Index(fields=["event_id"], name="projections_failure_event"),
        ]

    def __str__(self) -> str:
        return f"{self.projection} {self.event_type} {self.aggregate_id} #{self.sequence}"


class FailureAttempt(models.Model):
    """One attempt that failed, append-only: the operator's timeline."""

    failure = models.ForeignKey(Failure, on_delete=models.CASCADE, related_name="timeline")
    number = models.IntegerField()
    error_class = models.CharField(max_length=15, choices=ErrorClass)
    code = models.CharField(max_length=100)
    message = models.TextField()
    made_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "projections_attempt"

    def __str__(self) -> str:
        return f"{self.number}: {self.code}"


class Detour(models.Model):
    """An aggregate whose events wait until the one numbered ``next_sequence`` goes through.

    Changed only by whoever holds the lock of the build's row. The events that wait are not copied: they are in the log.
    """

    build = models.ForeignKey(Build, on_delete=models.CASCADE)
    aggregate_type = models.CharField(max_length=100)
    aggregate_id = models.CharField(max_length=NAME_LENGTH)
    next_sequence = models.BigIntegerField()
    due = models.DateTimeField(null=True, blank=True, help_text="Null: not before a person says so.")
    rebuild = models.BooleanField(
        default=False, db_default=False, help_text="Its rows are to be computed anew, from its first event on."
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "projections_detour"
        constraints = [
            models.UniqueConstraint(fields=["build", "aggregate_type", "aggregate_id"], name="projections_detour_uniq")
        ]
        indexes = [
            # Serves the question which detours of a build are due.
            models.Index(fields=["build", "due"], name="projections_detour_due")
        ]

    def __str__(self) -> str:
        return f"{self.build_id} {self.aggregate_type} {self.aggregate_id}"
