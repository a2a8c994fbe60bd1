"""Protected changes of customers: what is wanted, how far it came, and who is at it."""

from __future__ import annotations

from uuid import UUID

from django.db import models
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from customers.models.sync_requests import SyncRequest

OPEN = ("running", "undoing")
FINISHED = ("done", "undone")


class SagaQuerySet(QuerySet["Saga"]):
    """Sets of sagas."""

    def open(self) -> SagaQuerySet:
        """Those that workers are to bring to an end."""
        return self.filter(status__in=OPEN)

    def waiting(self) -> SagaQuerySet:
        """Those that nobody is at before their next attempt is due."""
        free = Q(lease_until=None) | Q(lease_until__lte=Now())
        return self.open().filter(free, next_attempt_at__gt=Now())

    def undone_creates(self, customer_id: UUID) -> SagaQuerySet:
        """Those that were to create this customer, whom there never was."""
        return self.filter(customer_id=customer_id, action=Saga.Action.CREATE, status=Saga.Status.UNDONE)

    def stuck(self) -> SagaQuerySet:
        """Those that wait for a person."""
        return self.filter(status=Saga.Status.STUCK)


class Saga(models.Model):
    """One protected change. Its steps say what was done of it and what was undone.

    While it is open its ``values`` are kept; when it ends they are emptied, for the customer or the answer has them.
    """

    class Action(models.TextChoices):
        CREATE = "create"
        UPDATE = "update"
        DELETE = "delete"

    class Status(models.TextChoices):
        RUNNING = "running"
        UNDOING = "undoing"
        DONE = "done"
        UNDONE = "undone"
        STUCK = "stuck", "stuck: a person must look"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    action = models.CharField(max_length=8, choices=Action)
    # No foreign key: until a create is done there is no such customer, and after one that was undone there never was.
    customer_id = models.UUIDField()
    definition = models.PositiveSmallIntegerField(default=1, help_text="which plan of steps it was begun with")
    values = models.JSONField(default=dict, blank=True)
    fields = models.JSONField(default=list, blank=True, help_text="names of what it changes")
    origin = models.CharField(max_length=32)
    priority = models.CharField(max_length=16, default="interactive")
    actor = models.CharField(max_length=200)
    address = models.CharField(max_length=500, help_text="where customers are found, as whoever asked for it knows it")
    idempotency_id = models.BigIntegerField(null=True, blank=True, help_text="key that its end completes")

    status = models.CharField(max_length=8, choices=Status, default=Status.RUNNING)
    failure = models.JSONField(null=True, blank=True, help_text="why it turned back: members of the problem")
    attempts = models.PositiveIntegerField(default=0, db_default=0, help_text="failures since the last step went on")
    strikes = models.PositiveIntegerField(default=0, db_default=0, help_text="of those, the ones that were no outage")
    next_attempt_at = models.DateTimeField(db_default=Now(), help_text="not taken before; under a lease, its end")
    give_up_at = models.DateTimeField(help_text="not begun anew after; what cannot be undone goes on")
    last_error_class = models.CharField(max_length=32, blank=True, default="", db_default="")
    last_error_code = models.CharField(max_length=64, blank=True, default="", db_default="")
    last_error_message = models.TextField(blank=True, default="", db_default="")

    # As with sync states: each taking adds one to the token, and every write of the holder asks for its own.
    lease_owner = models.CharField(max_length=128, blank=True, default="", db_default="")
    lease_token = models.BigIntegerField(default=0, db_default=0)
    lease_until = models.DateTimeField(null=True, blank=True)

    correlation_id = models.CharField(max_length=128, blank=True, default="", db_default="")
    traceparent = models.CharField(max_length=55, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = SagaQuerySet.as_manager()

    class Meta:
        default_permissions = ("view",)
        permissions = [("retry_saga", "Can have stuck protected changes tried again")]
        verbose_name = "protected change"
        constraints = [
            # One at a time for a customer, whatever the locks say. Serves the look-up of the one that is open.
            models.UniqueConstraint(
                fields=["customer_id"], condition=Q(status__in=OPEN), name="customers_saga_open_uniq"
            ),
            # One effect for a key.
            models.UniqueConstraint(fields=["idempotency_id"], name="customers_saga_key_uniq"),
            models.CheckConstraint(
                condition=Q(status__in=["running", "undoing", "done", "undone", "stuck"]),
                name="customers_saga_status_known",
            ),
            models.CheckConstraint(
                condition=Q(status__in=FINISHED, finished_at__isnull=False)
                | Q(~Q(status__in=FINISHED), finished_at__isnull=True),
                name="customers_saga_finished_has_time",
            ),
            # Who turned back says why; who did not has nothing to say.
            models.CheckConstraint(
                condition=Q(status__in=["undoing", "undone"], failure__isnull=False)
                | Q(status__in=["running", "done"], failure__isnull=True)
                | Q(status="stuck"),
                name="customers_saga_turned_back_has_failure",
            ),
            # Personal data is kept no longer than it is needed.
            models.CheckConstraint(
                condition=~Q(status__in=FINISHED) | Q(values={}), name="customers_saga_finished_is_empty"
            ),
        ]
        indexes = [
            # The claim.
            models.Index("next_attempt_at", condition=Q(status__in=OPEN), name="saga_due"),
            # The troubles and the console's filter.
            models.Index(F("id").desc(), condition=Q(status="stuck"), name="saga_stuck"),
            models.Index(F("id").desc(), condition=Q(status__in=OPEN), name="saga_open"),
            models.Index(F("id").desc(), condition=Q(status="undone"), name="saga_undone"),
            # The sagas of a customer, newest first.
            models.Index("customer_id", F("id").desc(), name="saga_by_customer"),
            # The life of what one request set in motion.
            models.Index("correlation_id", condition=~Q(correlation_id=""), name="saga_by_correlation"),
            # The removal of old ones.
            models.Index("finished_at", condition=Q(finished_at__isnull=False), name="saga_finished"),
        ]

    def __str__(self) -> str:
        return f"{self.action} of customer {self.customer_id}"

    @property
    def holder(self) -> str:
        """Its name as a holder of locks."""
        return f"saga:{self.pk}"

    @property
    def turned_back(self) -> bool:
        """Whether what was done of it is to be, or was, undone."""
        return self.failure is not None

    @property
    def may_turn_back(self) -> bool:
        """Whether all of it can still be undone: not once a record may have been deleted."""
        if self.action != Saga.Action.DELETE:
            return True
        asked = self.steps.filter(kind=SagaStep.Kind.REMOTE, request__isnull=False)
        return not asked.exclude(request__outcome=SyncRequest.Outcome.REFUSED).exists()

    @property
    def url(self) -> str:
        """Where it is found in the API."""
        return f"{self.address}/sagas/{self.pk}/"


class SagaStep(models.Model):
    """One step of a saga: done or not, undone or not; a crash between two of them loses nothing."""

    class Kind(models.TextChoices):
        RESERVE = "reserve", "locks and first checks"
        CHECK = "check", "whether the integration allows it"
        REMOTE = "remote", "the change in the integration"
        LOCAL = "local", "the change here, with its event"

    class Status(models.TextChoices):
        WAITING = "waiting"
        RUNNING = "running"
        DONE = "done"
        REFUSED = "refused"
        UNDOING = "undoing"
        UNDONE = "undone"
        SKIPPED = "skipped", "nothing was sent"

    saga = models.ForeignKey(Saga, on_delete=models.CASCADE, related_name="steps")
    number = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=8, choices=Kind)
    integration = models.CharField(max_length=32, blank=True, default="")
    status = models.CharField(max_length=8, choices=Status, default=Status.WAITING)
    attempts = models.PositiveIntegerField(default=0, db_default=0)
    undo_attempts = models.PositiveIntegerField(default=0, db_default=0)
    request = models.ForeignKey(
        "customers.SyncRequest", on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    undo_request = models.ForeignKey(
        "customers.SyncRequest", on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    before = models.JSONField(
        null=True, blank=True, help_text="what the fields that were sent were there before; until the saga ends"
    )
    error_code = models.CharField(max_length=64, blank=True, default="", db_default="")
    error_message = models.TextField(blank=True, default="", db_default="")
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True, help_text="done, refused, undone or left out")

    class Meta:
        default_permissions = ()
        verbose_name = "step"
        constraints = [
            # Serves the foreign key too.
            models.UniqueConstraint(fields=["saga", "number"], name="customers_sagastep_number_uniq"),
            models.CheckConstraint(
                condition=Q(status__in=["waiting", "running", "undoing"], finished_at__isnull=True)
                | Q(status__in=["done", "refused", "undone", "skipped"], finished_at__isnull=False),
                name="customers_sagastep_finished_has_time",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["reserve", "local"], integration="")
                | Q(Q(kind__in=["check", "remote"]) & ~Q(integration="")),
                name="customers_sagastep_integration_named",
            ),
        ]
        indexes = [
            # The foreign keys of requests.
            models.Index("request", condition=Q(request__isnull=False), name="sagastep_by_request"),
            models.Index("undo_request", condition=Q(undo_request__isnull=False), name="sagastep_by_undo_request"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.integration}".rstrip()

    @property
    def took_effect(self) -> bool:
        """Whether what it sent changed something there, as far as is known."""
        succeeded = (SyncRequest.Outcome.SUCCEEDED, SyncRequest.Outcome.ADOPTED)
        return self.request is not None and self.request.outcome in succeeded
