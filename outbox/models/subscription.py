"""Subscriptions: how far each subscriber has read, in which lane, and whether it may go on."""

from __future__ import annotations

from datetime import datetime

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from outbox.lanes import LANES


class Subscription(models.Model):
    """One subscriber's state, shared by all processes: pause, breaker and limits.

    The breaker is open while ``breaker_until`` is ahead. When that moment has passed, whoever moves it on with one
    conditional UPDATE may try one batch; it closes the breaker or leaves it open.
    """

    name = models.CharField(max_length=100, primary_key=True)
    topics = ArrayField(models.CharField(max_length=150), null=True, help_text="Null: all topics.")
    max_retries = models.IntegerField()
    active = models.BooleanField(default=True, db_default=True, help_text="Listed in OUTBOX_SUBSCRIBERS.")
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_until = models.DateTimeField(null=True, blank=True, help_text="Null: until it is resumed by hand.")
    paused_reason = models.TextField(blank=True, default="", db_default="")
    paused_by = models.CharField(max_length=200, blank=True, default="", db_default="")
    breaker_failures = models.IntegerField(default=0, db_default=0)
    breaker_until = models.DateTimeField(null=True, blank=True)
    breaker_message = models.TextField(blank=True, default="", db_default="")
    rate_limit = models.FloatField(null=True, blank=True, help_text="Events a second; null: as it declares.")
    concurrency = models.SmallIntegerField(
        null=True, blank=True, help_text="Calls at a time over all processes; null: as it declares."
    )
    tokens = models.FloatField(default=0, db_default=0, help_text="Of the rate limit, when it was last looked at.")
    refilled_at = models.DateTimeField(null=True, blank=True)
    keep_successes = models.BooleanField(
        default=False, db_default=False, help_text="Keep an attempt of each event that went through, too."
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_subscription"
        permissions = [
            ("pause_subscription", "Can pause and resume subscribers"),
            ("limit_subscription", "Can change the limits of subscribers"),
            ("republish_subscription", "Can publish a range of the log to a subscriber again"),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(rate_limit__gt=0), name="outbox_subscription_rate"),
            models.CheckConstraint(condition=models.Q(concurrency__gt=0), name="outbox_subscription_concurrency"),
        ]

    def __str__(self) -> str:
        return self.name

    def is_paused(self, now: datetime) -> bool:
        """Whether a pause is in force."""
        return self.paused_at is not None and (self.paused_until is None or self.paused_until > now)


class Lane(models.Model):
    """One subscriber's place in one lane of the log, and who reads it.

    Every event of the lane up to ``cursor`` went through, or has an open ``Delivery``, or waits behind a ``Detour``.
    ``epoch`` grows with each claim; a settle is conditional on it, so a worker that lost its lane changes nothing.
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE)
    lane = models.SmallIntegerField()
    cursor = models.BigIntegerField()
    owner = models.CharField(max_length=100, blank=True, default="", db_default="")
    epoch = models.BigIntegerField(default=0, db_default=0)
    lease_until = models.DateTimeField(db_default=Now())
    moved_at = models.DateTimeField(null=True, blank=True)
    strikes = models.SmallIntegerField(
        default=0, db_default=0, help_text="Leases that ended without being given back, since it last moved."
    )
    attempts = models.SmallIntegerField(
        default=0, db_default=0, help_text="Starts of work on its next event alone, counted after such leases."
    )
    processed = models.BigIntegerField(default=0, db_default=0)
    errors = models.BigIntegerField(default=0, db_default=0)
    retries = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "outbox_lane"
        constraints = [
            models.UniqueConstraint(fields=["subscription", "lane"], name="outbox_lane_uniq"),
            models.CheckConstraint(condition=models.Q(lane__gte=0, lane__lt=LANES), name="outbox_lane_range"),
        ]

    def __str__(self) -> str:
        return f"{self.subscription_id}/{self.lane}"


class Watermark(models.Model):
    """When all lanes of a subscriber had passed a position: the small history behind ``processed_at``.

    At most one row a second. A moment read from it is late by a second or two, and never early.
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE)
    position = models.BigIntegerField()
    passed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_watermark"
        constraints = [
            # Also serves the search for the first row at or past a position.
            models.UniqueConstraint(fields=["subscription", "position"], name="outbox_watermark_uniq")
        ]


class RelayProcess(models.Model):
    """A relay that is running; how many there are decides each one's share of the lanes."""

    owner = models.CharField(max_length=100)
    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE)
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "outbox_relay"
        constraints = [models.UniqueConstraint(fields=["owner", "subscription"], name="outbox_relay_uniq")]

    def __str__(self) -> str:
        return self.owner


class TopicFigure(models.Model):
    """What a subscriber was given of one topic, counted since the subscription was made.

    Each worker adds what it did once a second, after it is settled: one that dies leaves out its last second. What
    people skipped and replaced is added with the decision.
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE)
    topic = models.CharField(max_length=150)
    processed = models.BigIntegerField(default=0, db_default=0)
    errors = models.BigIntegerField(default=0, db_default=0)
    retries = models.BigIntegerField(default=0, db_default=0)
    skipped = models.BigIntegerField(default=0, db_default=0)
    replaced = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "outbox_topic_figure"
        constraints = [models.UniqueConstraint(fields=["subscription", "topic"], name="outbox_topic_figure_uniq")]

    def __str__(self) -> str:
        return f"{self.subscription_id} {self.topic}"


class DurationFigure(models.Model):
    """Calls of a subscriber by the time that they took: one bar of a histogram.

    Written as ``TopicFigure`` is.
    """

    subscription = models.ForeignKey(Subscription, on_delete=models.CASCADE)
    upto = models.FloatField(help_text="Seconds that none of these calls exceeded; infinity is the last bar.")
    calls = models.BigIntegerField(default=0, db_default=0)
    seconds = models.FloatField(default=0, db_default=0, help_text="That all of them took together.")

    class Meta:
        db_table = "outbox_duration_figure"
        constraints = [models.UniqueConstraint(fields=["subscription", "upto"], name="outbox_duration_figure_uniq")]

    def __str__(self) -> str:
        return f"{self.subscription_id} {self.upto}"
