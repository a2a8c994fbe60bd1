"""The log: events, their places, and what has none yet. Written by raw SQL only (publishing, sequencing)."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from outbox.events import NAME_LENGTH
from outbox.models.fields import JSONTextField


class StoredEvent(models.Model):
    """An immutable fact. Partitioned by ranges of id (see ``outbox.partitions``).

    Nothing has a foreign key to an event: partitions can go.
    """

    id = models.BigIntegerField(primary_key=True)
    uid = models.UUIDField()
    lane = models.SmallIntegerField()
    topic = models.CharField(max_length=150)
    type = models.CharField(max_length=100)
    aggregate_type = models.CharField(max_length=100)
    aggregate_id = models.CharField(max_length=NAME_LENGTH)
    sequence = models.BigIntegerField()
    schema_version = models.IntegerField()
    payload = JSONTextField()
    headers = JSONTextField()
    origin = models.CharField(max_length=NAME_LENGTH, blank=True)
    correlation_id = models.CharField(max_length=NAME_LENGTH, blank=True)
    causation_id = models.CharField(max_length=NAME_LENGTH, blank=True)
    traceparent = models.CharField(max_length=NAME_LENGTH, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "outbox_event"
        verbose_name = "event"
        permissions = [("read_payload", "Can read payloads"), ("process_log", "Can drain the log by hand")]
        indexes = [
            # Serves detours (the events of one aggregate from a sequence number on) and the list of an aggregate.
            models.Index(fields=["aggregate_type", "aggregate_id", "sequence"], name="outbox_event_aggregate"),
            # Serves the search for the id that the outside world knows.
            models.Index(fields=["uid"], name="outbox_event_uid"),
            # Serves the life of a request: the first events of a correlation id.
            models.Index(
                fields=["correlation_id", "id"],
                condition=~models.Q(correlation_id=""),
                name="outbox_event_correlation",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.aggregate_id} #{self.sequence}"


class Unsequenced(models.Model):
    """An event that is committed, or about to be, and has no place in the log yet. A queue: rows live milliseconds."""

    id = models.BigIntegerField(primary_key=True)
    lane = models.SmallIntegerField()

    class Meta:
        db_table = "outbox_unsequenced"
        verbose_name_plural = "unsequenced"


class LogEntry(models.Model):
    """The place of one event. Partitioned by ranges of position.

    There is no index on position alone: the planner took it for a quiet lane and read everything in between.
    """

    pk = models.CompositePrimaryKey("lane", "position")
    lane = models.SmallIntegerField()
    position = models.BigIntegerField()
    event_id = models.BigIntegerField()

    class Meta:
        db_table = "outbox_log"
        verbose_name_plural = "log entries"


class AggregateSequence(models.Model):
    """The number of the last event of one aggregate; its row lock puts that aggregate's events in order."""

    pk = models.CompositePrimaryKey("aggregate_type", "aggregate_id")
    aggregate_type = models.CharField(max_length=100)
    aggregate_id = models.CharField(max_length=NAME_LENGTH)
    sequence = models.BigIntegerField()

    class Meta:
        db_table = "outbox_aggregate"


class Retained(models.Model):
    """From where on the log is whole: one row, written when partitions are dropped."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    first_event_id = models.BigIntegerField(help_text="Every event from this id on is there.")
    first_position = models.BigIntegerField(help_text="Every place from this one on is there.")
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_retained"
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="outbox_retained_one_row")]
