"""What is kept about each customer in each integration, and about each account of one."""

from __future__ import annotations

import datetime as dt

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Func, IntegerField, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Least, Now
from django.utils import timezone

from customers.models.customer import Customer
from operations.correlation import correlation_id
from operations.tracing import traceparent


class Priority(models.IntegerChoices):
    """Class of the work that is wanted; a smaller one goes first."""

    INTERACTIVE = 0
    WEBHOOK = 1
    BULK = 2


class SyncAccount(models.Model):
    """One account of an integration in one mode: its shared rate and whether it is closed for a while.

    Every worker reserves the moments of its calls here, so the limit holds over all processes. A single row at 25 calls
    a second.
    """

    integration = models.CharField(max_length=32)
    account = models.CharField(max_length=64, blank=True, help_text="empty: the account of the key itself")
    livemode = models.BooleanField()
    # Seconds since 1970, as the clock of the server has them: a moment is compared with many others in one statement.
    starts = ArrayField(
        models.FloatField(), default=list, db_default=[], help_text="moments of the last calls; later ones are reserved"
    )
    due = models.FloatField(default=0, db_default=0, help_text="moment of the next call by an even spread")
    webhook_at = models.DateTimeField(null=True, blank=True, help_text="when a webhook's call was reserved last")
    bulk_at = models.DateTimeField(null=True, blank=True, help_text="when a bulk call was reserved last")
    closed_until = models.DateTimeField(null=True, blank=True, help_text="no call starts before")
    failures = models.PositiveIntegerField(default=0, help_text="calls in a row that got no answer")
    error = models.TextField(blank=True, help_text="why it was closed last")
    # Messages of the integration were asked for up to polled_until. While a window is read, polling_until is its end
    # and polling_after the place in it.
    polled_until = models.DateTimeField(null=True, blank=True)
    polling_until = models.DateTimeField(null=True, blank=True)
    polling_after = models.CharField(max_length=255, blank=True, default="", db_default="")
    polling_error = models.TextField(blank=True, default="", db_default="")

    class Meta:
        constraints = [
            # Serves every call: the row of (integration, account, mode).
            models.UniqueConstraint(fields=["integration", "account", "livemode"], name="customers_syncaccount_uniq"),
        ]
        verbose_name = "account"

    def __str__(self) -> str:
        whose = f"account {self.account}" if self.account else "the account of the key"
        return f"{self.integration}: {whose}, {'live' if self.livemode else 'test'} mode"


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
            correlation_id=correlation_id(),
            traceparent=traceparent(),
        )

    def try_again(self) -> int:
        """Have failed rows looked at again, after all that is more urgent; return how many were failed."""
        failed = self.filter(status=SyncState.Status.FAILED)
        found = list(failed.select_for_update(no_key=True).order_by("customer_id", "pk").values_list("pk", flat=True))
        rows = SyncState.objects.filter(pk__in=found)
        rows.look_again(priority=Priority.BULK)
        return rows.update(status=SyncState.Status.PENDING)


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
    # While it is set nobody but that protected change works on the row. One index entry for each that is open.
    saga = models.ForeignKey(
        "customers.Saga", on_delete=models.SET_NULL, null=True, blank=True, related_name="states", db_index=False
    )
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
    correlation_id = models.CharField(
        max_length=128, blank=True, default="", db_default="", help_text="of what asked for a look last"
    )
    traceparent = models.CharField(max_length=55, blank=True, default="", db_default="")

    # Long external work is a lease with a fencing token: every write of the holder is conditional on the token, which
    # grows with each taking, so a holder that was stopped past its lease can change nothing.
    lease_owner = models.CharField(max_length=128, blank=True, db_default="")
    lease_token = models.BigIntegerField(default=0, db_default=0)
    lease_until = models.DateTimeField(null=True, blank=True)

    last_error_class = models.CharField(max_length=32, blank=True, db_default="")
    last_error_code = models.CharField(max_length=64, blank=True, db_default="")
    last_error_message = models.TextField(blank=True, db_default="")
    failing_since = models.DateTimeField(null=True, blank=True, help_text="first of the failures in a row")
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
                condition=Q(customer__isnull=False) | Q(remote_id__isnull=False) | Q(saga__isnull=False),
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
            # The states that a protected change has taken. Serves the foreign key too.
            models.Index("saga", condition=Q(saga__isnull=False), name="syncstate_by_saga"),
            # The console's exact search by remote id, and the records of a page of a comparison.
            models.Index("remote_id", name="syncstate_by_remote_id"),
        ]
        permissions = [("look_again_syncstate", "Can have sync states looked at again")]
        verbose_name = "sync state"

    def __str__(self) -> str:
        return f"{self.integration} {self.remote_id or self.reference}"

    @property
    def is_worked_on(self) -> bool:
        """Whether a worker has it, by this machine's clock."""
        return self.lease_until is not None and self.lease_until > timezone.now()

    @property
    def attempt_due_at(self) -> dt.datetime | None:
        """When it is looked at next; None while that is done, and when nothing is to be done."""
        return self.next_attempt_at if self.dirty_at and not self.is_worked_on else None

    @property
    def reference(self) -> str:
        """The id of the customer that it is of, or of the one that a protected change is about to create."""
        if self.customer_id is None and self.saga is not None:
            return str(self.saga.customer_id)
        return str(self.customer_id or "")
