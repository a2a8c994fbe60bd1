"""Erasures of people, and what they still wait for."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from customers.models.customer import Customer


class Erasure(models.Model):
    """The erasure of one customer: begun for good with its row, finished when nothing can bring the data back.

    What was under way when it began (a call to an integration, a delivery, a batch of a read model) may still write
    down what it had read. So the traces are gone through again until all of that has ended, and for a while after it.
    """

    customer = models.OneToOneField(Customer, on_delete=models.PROTECT, primary_key=True, related_name="erasure")
    event_id = models.BigIntegerField(help_text="of customer.erased: who is past it has nothing older in hand")
    requested_by = models.CharField(max_length=200)
    requested_at = models.DateTimeField(db_default=Now())
    waits_for = ArrayField(models.CharField(max_length=200), default=list, blank=True)
    passes = models.PositiveIntegerField(default=0, help_text="how often the traces were gone through")
    next_pass_at = models.DateTimeField(db_default=Now(), null=True, help_text="null: never again")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(finished_at__isnull=False) | Q(next_pass_at__isnull=False),
                name="customers_erasure_goes_on",
            ),
        ]
        indexes = [
            # The claim: those whose traces are due to be gone through again.
            models.Index("next_pass_at", condition=Q(next_pass_at__isnull=False), name="erasure_due"),
            # The console's list of unfinished ones, newest first.
            models.Index(F("requested_at").desc(), condition=Q(finished_at__isnull=True), name="erasure_open"),
            # The console's list, newest first.
            models.Index(F("requested_at").desc(), F("customer").desc(), name="erasure_by_age"),
        ]
        default_permissions = ("view",)
        verbose_name = "erasure"

    def __str__(self) -> str:
        return f"Erasure of {self.customer_id}"
