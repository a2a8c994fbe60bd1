"""What is kept about each customer in each integration: its state, the request in flight, conflicts, webhooks."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Func, IntegerField, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Least, Now
from uuid_utils.compat import uuid7

from customers.models.customer import Customer


class Priority(models.IntegerChoices):
    """Class of the work that is wanted; a smaller one goes first."""

    INTERACTIVE = 0
    WEBHOOK = 1
    BULK = 2


class SyncAccount(models.Model):
    """One account of an integration in one mode: its shared token bucket and whether it is closed for a while.

    Every worker takes its tokens here, so the limit holds over all processes. A single row at 25 calls a second.
    """

    integration = models.CharField(max_length=32)
    account = models.CharField(max_length=64, blank=True, help_text="empty: the account of the key itself")
    livemode = models.BooleanField()
    tokens = models.FloatField(default=0, help_text="calls that may start at once, as of refilled_at")
    refilled_at = models.DateTimeField(db_default=Now())
    closed_until = models.DateTimeField(null=True, blank=True, help_text="no call starts before")
    failures = models.PositiveIntegerField(default=0, help_text="calls in a row that got no answer")
    error = models.TextField(blank=True, help_text="why it was closed last")

    class Meta:
        constraints = [
            # Serves every call: the bucket of (integration, account, mode).
            models.UniqueConstraint(fields=["integration", "account", "livemode"], name="customers_syncaccount_uniq"),
        ]
        verbose_name = "account"

    def __str__(self) -> str:
        return f"{self.integration} {self.account or 'own account'} {'live' if self.livemode else 'test'}"


class SyncStateQuerySet(QuerySet["SyncState"]):
    """Sets of sync states."""

    def look_again(self, *, priority: Priority = Priority.INTERACTIVE) -> int:
        """Mark every row dirty and due at once; return how many.

        The waiting time of a row under a lease is left alone: it is the lease's end, and ``poke_count`` alone makes
        the holder leave the row dirty.
        """
        now = Func(function="clock_timestamp", output_field=models.DateTimeField())
        return self.update(
            priority=models.Case(
                models.When(dirty_at__isnull=True, then=Value(int(priority))),
                default=Least(F("priority"), Value(int(priority))),
                output_field=IntegerField(),
            ),
            dirty_at=Coalesce(F("dirty_at"), now),
            next_attempt_at=models.Case(models.When(lease_until__gt=Now(), then=F("next_attempt_at")), default=Now()),
            poke_count=F("poke_count") + 1,
        )


class SyncState(models.Model):
    """One customer in one integration: the authority on ids and the last state that both sides agreed on.

    Without a customer it is a remote record that is known here but linked to nobody.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        IN_SYNC = "in_sync"
        RETRYING = "retrying"
        CONFLICT = "conflict"
        FAILED = "failed"
        ORPHANED = "orphaned"
        DELETED = "deleted"

    # Serves the way from a customer to its states (API, console).
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, null=True, blank=True, related_name="sync_states")
    integration = models.CharField(max_length=32)
    account = models.CharField(max_length=64, blank=True)
    livemode = models.BooleanField()
    remote_id = models.CharField(max_length=255, null=True, blank=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING, db_default=Status.PENDING)

    base = models.JSONField(null=True, blank=True, help_text="fields that both sides agreed on last; null: never")
    base_hash = models.CharField(max_length=64, blank=True, db_default="", help_text="SHA-256 of base")

    # What is wanted. A poke sets dirty_at (kept when set: the age of the wish) and adds one to poke_count; whoever
    # settles clears dirty_at only if poke_count is still what it was when the row was taken.
    dirty_at = models.DateTimeField(null=True, blank=True)
    poke_count = models.BigIntegerField(default=0, db_default=0)
    priority = models.SmallIntegerField(choices=Priority, default=Priority.INTERACTIVE, db_default=0)
    next_attempt_at = models.DateTimeField(db_default=Now(), help_text="not looked at before; under a lease, its end")
    attempts = models.PositiveIntegerField(default=0, db_default=0, help_text="failures in a row")

    # Long external work is a lease with a fencing token: every write of the holder is conditional on the token, which
    # grows with each taking, so a holder that was stopped past its lease can change nothing.
    lease_owner = models.CharField(max_length=128, blank=True, db_default="")
    lease_token = models.BigIntegerField(default=0, db_default=0)
    lease_until = models.DateTimeField(null=True, blank=True)

    last_error_class = models.CharField(max_length=32, blank=True, db_default="")
    last_error_code = models.CharField(max_length=64, blank=True, db_default="")
    last_error_message = models.TextField(blank=True, db_default="")
    last_success_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    objects = SyncStateQuerySet.as_manager()

    class Meta:
        constraints = [
            # One state per customer and integration: pokes that race insert one row. Serves the poke's upsert.
            models.UniqueConstraint(fields=["integration", "customer"], name="customers_syncstate_customer_uniq"),
            # One state per remote record: a webhook and an import that race insert one row. Serves the webhooks.
            models.UniqueConstraint(
                fields=["integration", "account", "livemode", "remote_id"], name="customers_syncstate_remote_uniq"
            ),
            models.CheckConstraint(
                condition=Q(customer__isnull=False) | Q(remote_id__isnull=False),
                name="customers_syncstate_has_a_side",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["pending", "in_sync", "retrying", "conflict", "failed", "orphaned", "deleted"]),
                name="customers_syncstate_status_known",
            ),
            models.CheckConstraint(condition=~Q(remote_id=""), name="customers_syncstate_remote_filled"),
        ]
        indexes = [
            # The claim: due rows of one integration by class, then age. Only dirty rows are in it, and a row under a
            # lease or waiting for its next attempt sorts behind the due ones, so a claim reads just what it takes.
            models.Index(
                "integration",
                "priority",
                "next_attempt_at",
                condition=Q(dirty_at__isnull=False),
                name="syncstate_due",
            ),
            # The console and the API's filter by status, newest first.
            models.Index("status", F("id").desc(), name="syncstate_by_status"),
            # The console's exact search by remote id.
            models.Index("remote_id", name="syncstate_by_remote_id"),
        ]
        permissions = [("look_again_syncstate", "Can have sync states looked at again")]
        verbose_name = "sync state"

    def __str__(self) -> str:
        return f"{self.integration} {self.remote_id or self.customer_id}"


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
    sends = models.PositiveIntegerField(default=1)
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
        verbose_name = "conflict"

    def __str__(self) -> str:
        return f"{self.kind} {self.field}".strip()


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
    received_at = models.DateTimeField(db_default=Now())
    processed_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=16, choices=Outcome, default=Outcome.PENDING)
    reason = models.CharField(max_length=255, blank=True, help_text="why it was ignored")

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
            # The console's exact search by event id without the integration.
            models.Index("event_id", name="webhook_by_event_id"),
        ]
        verbose_name = "webhook"

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"
