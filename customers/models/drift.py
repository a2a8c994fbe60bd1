"""Differences between the catalogue and an integration that a comparison of both found."""

from __future__ import annotations

from typing import Any, TypedDict
from uuid import UUID

from django.db import models
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from customers.models.customer import Customer
from customers.models.sync import SyncState


class FieldDifference(TypedDict):
    """One field that differs: what both sides agreed on before, and what each has now."""

    field: str
    base: Any
    ours: Any
    theirs: Any


class DriftQuerySet(QuerySet["Drift"]):
    """Sets of differences."""

    def open(self) -> DriftQuerySet:
        """Those that were found, and that neither a comparison nor a person has ended yet."""
        return self.filter(status=Drift.Status.OPEN)

    def proposals(self) -> DriftQuerySet:
        """Of the open ones those that wait for a person: the next comparison mends the others by rule."""
        return self.open().filter(safe=False)

    def about(self, state: SyncState) -> DriftQuerySet:
        """Open ones that speak of this state, its record or its customer.

        By the unique index of open ones and by the index of states; nearly always there is none.
        """
        subjects = [f"remote:{state.remote_id}"] if state.remote_id else []
        subjects += [f"customer:{state.customer_id}"] if state.customer_id else []
        whose = Q(integration=state.integration, account=state.account, livemode=state.livemode, subject__in=subjects)
        return self.open().filter(whose | Q(state=state.pk))

    def proposes_link(self, *, integration: str, account: str, livemode: bool, customer_id: UUID) -> bool:
        """Whether a person is asked, or has just agreed, to link a record there to this customer.

        By the index of customers; nearly always there is none.
        """
        rows = self.filter(integration=integration, account=account, livemode=livemode, customer=customer_id)
        undecided = (Drift.Status.OPEN, Drift.Status.ACCEPTED)
        return rows.filter(repair=Drift.Repair.LINK, status__in=undecided).exists()

    def end_settled(self, state: SyncState, status: str) -> int:
        """End what a synchronisation that ended with ``status`` has mended, or asks a person about itself.

        A second record of a customer is none of that, unless it is the one that is gone.
        """
        rows, outcome = self.about(state), "Both sides agree since a synchronisation."
        match status:
            case SyncState.Status.DELETED:
                pass
            case SyncState.Status.IN_SYNC:
                rows = rows.exclude(kind=Drift.Kind.DUPLICATE_LINK)
            case SyncState.Status.CONFLICT:
                rows = rows.filter(kind__in=[Drift.Kind.FIELD_DIFFERENCE, Drift.Kind.TOMBSTONE])
                outcome = "It is a conflict by now, and decided there."
            case _:
                return 0
        return rows.update(status=Drift.Status.GONE, ended_at=Now(), outcome=outcome)


class Drift(models.Model):
    """One difference, and the repair that is proposed for it, or was made by rule."""

    class Kind(models.TextChoices):
        MISSING_HERE = "missing_here", "not in the catalogue"
        MISSING_THERE = "missing_there", "not in the integration"
        FIELD_DIFFERENCE = "field_difference", "fields differ"
        DUPLICATE_LINK = "duplicate_link", "a second record of one customer"
        UNLINKED = "unlinked", "on both sides, not linked"
        TOMBSTONE = "tombstone_mismatch", "deleted on one side only"

    class Repair(models.TextChoices):
        NOTHING = "", "none: a person mends it there"
        LOOK_AGAIN = "look_again", "synchronise it"
        IMPORT = "import", "take it into the catalogue"
        CREATE_THERE = "create_there", "create it there anew"
        LINK = "link", "link both"
        DELETE_THERE = "delete_there", "delete the spare record there"

    class Status(models.TextChoices):
        OPEN = "open", "waits"
        ACCEPTED = "accepted", "is being repaired"
        REPAIRED = "repaired"
        DECLINED = "declined", "left as it is"
        GONE = "gone", "not there any more"

    integration = models.CharField(max_length=32)
    account = models.CharField(max_length=64, blank=True)
    livemode = models.BooleanField()
    kind = models.CharField(max_length=20, choices=Kind)
    subject = models.CharField(max_length=300, help_text="remote:<id>, or customer:<id> where there is no record")
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, null=True, blank=True, related_name="drifts")
    state = models.ForeignKey(
        SyncState, on_delete=models.SET_NULL, null=True, blank=True, related_name="drifts", db_index=True
    )
    remote_id = models.CharField(max_length=255, blank=True)
    fields = models.JSONField(default=list, blank=True, help_text="what differs: field, base, ours, theirs")
    facts_hash = models.CharField(max_length=64, help_text="SHA-256 of what was found; a declined one stays declined")
    detail = models.TextField(blank=True, help_text="what was found, in a sentence")
    repair = models.CharField(max_length=16, choices=Repair, blank=True)
    destroys = models.BooleanField(default=False, help_text="the repair deletes something on either side")
    safe = models.BooleanField(default=False, help_text="the repair needs nobody's consent")
    why_not = models.TextField(blank=True, help_text="why a person must decide")
    status = models.CharField(max_length=10, choices=Status, default=Status.OPEN)
    operation_id = models.BigIntegerField(help_text="the operation that found it last")
    outcome = models.TextField(blank=True, help_text="how the repair went")
    found_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), help_text="found last")
    ended_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.CharField(max_length=200, blank=True)

    objects = DriftQuerySet.as_manager()

    class Meta:
        constraints = [
            # One open proposal per difference; finding it again updates it. Serves the finding, too.
            models.UniqueConstraint(
                fields=["integration", "account", "livemode", "subject", "kind"],
                condition=Q(status__in=["open", "accepted"]),
                name="customers_drift_open_uniq",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["open", "accepted", "repaired", "declined", "gone"]),
                name="customers_drift_status_known",
            ),
            models.CheckConstraint(
                condition=Q(status__in=["open", "accepted"], ended_at__isnull=True)
                | Q(status__in=["repaired", "declined", "gone"], ended_at__isnull=False),
                name="customers_drift_ended",
            ),
        ]
        indexes = [
            # The console's and the API's list of proposals, newest first.
            models.Index(F("id").desc(), condition=Q(status__in=["open", "accepted"]), name="drift_open"),
            # Proposals among the troubles, newest first, however many a dry run found that are safe by rule.
            models.Index(F("id").desc(), condition=Q(status="open", safe=False), name="drift_proposals"),
            # Lists by any status, newest first.
            models.Index("status", F("id").desc(), name="drift_by_status"),
            # Whether the same difference was declined before.
            models.Index("subject", condition=Q(status="declined"), name="drift_declined"),
            # What one operation found, by kind and status.
            models.Index("operation_id", "kind", "status", name="drift_by_operation"),
            # The removal of old ones.
            models.Index("ended_at", condition=Q(ended_at__isnull=False), name="drift_ended"),
        ]
        permissions = [
            ("accept_drift", "Can have differences between both sides repaired"),
            ("decline_drift", "Can leave differences between both sides as they are"),
            ("reconcile_drift", "Can have both sides compared and imported"),
        ]
        verbose_name = "difference"

    def __str__(self) -> str:
        return f"{self.integration} {self.remote_id or self.customer_id}: {self.get_kind_display()}"

    @property
    def differing(self) -> list[FieldDifference]:
        """What differs by field, each with all of its values; of somebody who was erased the names alone are left."""
        return [
            FieldDifference(
                field=str(one.get("field", "")), base=one.get("base"), ours=one.get("ours"), theirs=one.get("theirs")
            )
            for one in self.fields
        ]


class ReconcileRun(models.Model):
    """What one comparison of both sides counted; its steps are the items of an operation."""

    operation_id = models.BigIntegerField(unique=True)
    integration = models.CharField(max_length=32)
    account = models.CharField(max_length=64, blank=True)
    livemode = models.BooleanField()
    compared = models.BigIntegerField(default=0, db_default=0, help_text="records there that were read")
    missing = models.BigIntegerField(default=0, db_default=0, help_text="of those, not in the catalogue")
    imported = models.BigIntegerField(default=0, db_default=0, help_text="of those, taken into the catalogue")
    complete = models.BooleanField(default=False, db_default=False, help_text="all of both sides was compared")
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            # The last comparison of an integration.
            models.Index("integration", F("id").desc(), name="reconcilerun_by_integration"),
        ]
        default_permissions = ("view",)
        verbose_name = "comparison"

    def __str__(self) -> str:
        return f"{self.integration}, operation {self.operation_id}"


class ReconcileSeen(models.Model):
    """A remote record that a comparison under way has read, so that at its end what is missing there is known.

    A table of its own: a column of the sync states would rewrite each of those wide rows once for each comparison.
    """

    operation_id = models.BigIntegerField()
    remote_id = models.CharField(max_length=255)

    class Meta:
        constraints = [
            # A page that is read twice counts once. Serves the search for those that were not seen, too.
            models.UniqueConstraint(fields=["operation_id", "remote_id"], name="customers_reconcileseen_uniq"),
        ]
        default_permissions = ()

    def __str__(self) -> str:
        return self.remote_id
