"""What consumer groups have handled, and the messages that did not go through at once."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from outbox.errors import ErrorClass

GROUP_LENGTH = 100
TOPIC_LENGTH = 150
# Messages without a name are called by their place: topic, partition and offset.
PLACE_LENGTH = 300


class InboxMessage(models.Model):
    """A message that a consumer group is done with, or has parked: it is never handled a second time.

    Written in the transaction of the effect. Removed when it is older than messages can come again; from then on the
    sequence of the aggregate still tells a repetition.
    """

    pk = models.CompositePrimaryKey("consumer_group", "event_id")
    consumer_group = models.CharField(max_length=GROUP_LENGTH)
    event_id = models.CharField(max_length=PLACE_LENGTH)
    topic = models.CharField(max_length=TOPIC_LENGTH)
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    outcome = models.CharField(max_length=10)
    handled_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_inbox"
        indexes = [
            # Serves retention: what was handled long ago. What is parked stays known as long as it is.
            models.Index(
                fields=["handled_at"], condition=Q(outcome__in=["success", "ignored"]), name="outbox_inbox_done"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.consumer_group} {self.event_id}"


class InboxAggregate(models.Model):
    """The last number of an aggregate that a group has handled. Its row lock makes one transaction at a time handle
    messages of that aggregate, whoever holds the partition. By topic: two topics have no order between them."""

    pk = models.CompositePrimaryKey("consumer_group", "topic", "aggregate_type", "aggregate_id")
    consumer_group = models.CharField(max_length=GROUP_LENGTH)
    topic = models.CharField(max_length=TOPIC_LENGTH)
    aggregate_type = models.CharField(max_length=100)
    aggregate_id = models.CharField(max_length=PLACE_LENGTH)
    sequence = models.BigIntegerField(default=0)

    class Meta:
        db_table = "outbox_inbox_aggregate"


class InboxPartition(models.Model):
    """What a worker has in hand of a partition, and how far it is behind."""

    pk = models.CompositePrimaryKey("consumer_group", "topic", "partition")
    consumer_group = models.CharField(max_length=GROUP_LENGTH)
    topic = models.CharField(max_length=TOPIC_LENGTH)
    partition = models.IntegerField()
    worker = models.CharField(max_length=100, default="", db_default="")
    in_hand_from = models.BigIntegerField(default=0, db_default=0, help_text="Offset of the first message in hand.")
    in_hand_to = models.BigIntegerField(default=-1, db_default=-1, help_text="Offset of the last one; less means none.")
    careful_size = models.IntegerField(default=0, db_default=0, help_text="Messages at a time, after a worker died.")
    careful_to = models.BigIntegerField(default=-1, db_default=-1, help_text="Offset up to which that holds.")
    lag = models.BigIntegerField(default=0, db_default=0, help_text="Messages not handled yet, when last looked at.")
    reported_at = models.DateTimeField(db_default=Now())
    reported_by = models.CharField(max_length=100, default="", db_default="", help_text="The worker that looked.")

    class Meta:
        db_table = "outbox_inbox_partition"


class ParkedState(models.TextChoices):
    """Where a message stands that did not go through at once."""

    RETRYING = "retrying"
    WAITING = "waiting"
    DEAD = "dead"
    RESOLVED = "resolved"


class ParkedResolution(models.TextChoices):
    """How it ended: handled, found to be done already, or given up by a person."""

    HANDLED = "handled"
    IGNORED = "ignored"
    DISCARDED = "discarded"


QUEUED = [ParkedState.RETRYING, ParkedState.WAITING]
PARKED = [ParkedState.RETRYING, ParkedState.WAITING, ParkedState.DEAD]


class ParkedMessage(models.Model):
    """A consumed message that is retried, waits behind one of its aggregate, or is dead; with all of its bytes.

    The partition goes past it. The messages of an aggregate queue in the order of their ids, and one of them, the
    first, is retried; all changes happen under the lock of the aggregate's row (see ``outbox.consuming.inbox``).
    """

    consumer_group = models.CharField(max_length=GROUP_LENGTH)
    event_id = models.CharField(max_length=PLACE_LENGTH)
    topic = models.CharField(max_length=TOPIC_LENGTH)
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    timestamp = models.BigIntegerField(help_text="Milliseconds since 1970; 0 if the message has none.")
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.JSONField(help_text="Name and base64 of each, in their order.")
    type = models.CharField(max_length=100, blank=True)
    aggregate_type = models.CharField(max_length=100, blank=True)
    aggregate_id = models.CharField(max_length=PLACE_LENGTH)
    state = models.CharField(max_length=10, choices=ParkedState)
    attempts = models.IntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True)
    error_class = models.CharField(max_length=15, choices=ErrorClass, blank=True)
    code = models.CharField(max_length=100, blank=True)
    message = models.TextField(blank=True)
    traceback = models.TextField(blank=True)
    fingerprint = models.CharField(max_length=64, blank=True)
    blocks = models.BooleanField(
        default=False, db_default=False, help_text="It is dead, and the later ones of its aggregate wait behind it."
    )
    redriven = models.BooleanField(default=False, help_text="A person sent it again, whatever came after it.")
    dead_letter_due = models.DateTimeField(null=True, blank=True, help_text="When to write the dead letter to Kafka.")
    dead_lettered_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolution = models.CharField(max_length=10, choices=ParkedResolution, blank=True, default="", db_default="")
    resolved_by = models.CharField(max_length=200, blank=True, default="", db_default="")
    resolved_reason = models.TextField(blank=True, default="", db_default="")

    class Meta:
        db_table = "outbox_inbox_parked"
        verbose_name = "consumed message"
        permissions = [
            ("redrive_parkedmessage", "Can send consumed dead letters again"),
            ("discard_parkedmessage", "Can give consumed dead letters up"),
        ]
        constraints = [
            # A message is parked once per group.
            models.UniqueConstraint(
                fields=["consumer_group", "event_id"], condition=Q(state__in=PARKED), name="outbox_parked_uniq"
            ),
            # One message of an aggregate is retried, and the others wait.
            models.UniqueConstraint(
                fields=["aggregate_type", "aggregate_id", "topic", "consumer_group"],
                condition=Q(state="retrying"),
                name="outbox_parked_head_uniq",
            ),
            models.CheckConstraint(condition=Q(state__in=ParkedState.values), name="outbox_parked_state"),
            # Only a dead one holds others back, and not longer than it is dead.
            models.CheckConstraint(condition=Q(blocks=False) | Q(state="dead"), name="outbox_parked_blocks"),
            models.CheckConstraint(
                condition=Q(state="retrying", next_attempt_at__isnull=False)
                | (~Q(state="retrying") & Q(next_attempt_at__isnull=True)),
                name="outbox_parked_due",
            ),
            models.CheckConstraint(
                condition=Q(state="resolved", resolution__in=ParkedResolution.values)
                | (~Q(state="resolved") & Q(resolution="")),
                name="outbox_parked_resolution",
            ),
        ]
        indexes = [
            # Serves the questions whether an aggregate has something queued, and what is next.
            models.Index(
                fields=["aggregate_type", "aggregate_id", "topic", "consumer_group", "id"],
                condition=Q(state__in=QUEUED) | Q(blocks=True),
                name="outbox_parked_queued",
            ),
            # Serves the worker's question what is due.
            models.Index(
                fields=["consumer_group", "next_attempt_at"], condition=Q(state="retrying"), name="outbox_parked_due"
            ),
            # Serves the writing of dead letters.
            models.Index(
                fields=["consumer_group", "dead_letter_due"],
                condition=Q(dead_letter_due__isnull=False),
                name="outbox_parked_dead_letter",
            ),
            # Serves lists by state, newest first, and bounded counts.
            models.Index(fields=["state", "-id"], name="outbox_parked_state_idx"),
            # Serves grouping of the dead by kind of failure.
            models.Index(fields=["fingerprint", "-id"], condition=Q(state="dead"), name="outbox_parked_kind"),
            # Serves the redrive of the dead-letter topic.
            models.Index(fields=["event_id", "consumer_group"], name="outbox_parked_event"),
            # Serves retention: what was resolved long ago.
            models.Index(fields=["resolved_at"], condition=Q(state="resolved"), name="outbox_parked_resolved"),
            # Serves the erasure of an aggregate.
            models.Index(fields=["aggregate_type", "aggregate_id"], name="outbox_parked_about"),
        ]

    def __str__(self) -> str:
        return f"{self.consumer_group} {self.topic}/{self.partition}/{self.offset}"
