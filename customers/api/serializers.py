"""What the API takes and gives for customers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final, Protocol

from django.conf import settings
from rest_framework import serializers

from customers import values
from customers.instants import instant_text
from customers.models import Customer, Erasure, SyncState
from operations.serializers import StrictSerializer

# What integrations say about a customer changes without a request, so every use of a kept answer asks first.
UNCACHED: Final = {"Cache-Control": "private, no-cache"}

READ_ONLY: Final = ("id", "version", "created_at", "updated_at", "deleted_at", "integrations")


class Address(serializers.Serializer[Any]):
    """An address, of Stripe's keys."""

    line1 = serializers.CharField(max_length=values.ADDRESS_LONGEST, allow_null=True, required=False)
    line2 = serializers.CharField(max_length=values.ADDRESS_LONGEST, allow_null=True, required=False)
    city = serializers.CharField(max_length=values.ADDRESS_LONGEST, allow_null=True, required=False)
    state = serializers.CharField(max_length=values.ADDRESS_LONGEST, allow_null=True, required=False)
    postal_code = serializers.CharField(max_length=values.ADDRESS_LONGEST, allow_null=True, required=False)
    country = serializers.CharField(
        min_length=2, max_length=2, allow_null=True, required=False, help_text="ISO 3166-1 alpha-2"
    )


class CustomerInput(serializers.Serializer[Any]):
    """Base of what clients send.

    The declared fields are what the API's description shows; what is enforced are the rules of ``customers.values``,
    which the import shares.
    """

    name = serializers.CharField(max_length=values.NAME_LONGEST, allow_null=True, required=False)
    email = serializers.EmailField(
        max_length=254, allow_null=True, required=False, help_text="unique among active customers in any case"
    )
    phone = serializers.CharField(max_length=values.PHONE_LONGEST, allow_null=True, required=False)
    address = Address(allow_null=True, required=False)
    metadata = serializers.DictField(
        child=serializers.CharField(max_length=values.METADATA_VALUE_LONGEST),
        required=False,
        help_text=(
            f"at most {values.METADATA_KEYS_MOST} keys of at most {values.METADATA_KEY_LONGEST} characters, without "
            "square brackets; replaced as a whole"
        ),
    )

    rules: ClassVar[dict[str, Any]] = {}

    def run_validation(self, data: Any = serializers.empty) -> Any:
        return values.customer_values(data, **self.rules)


class CustomerCreate(CustomerInput):
    """A new customer; it needs a name or an e-mail."""

    rules = {"new": True}


class CustomerReplace(CustomerInput):
    """All fields of a customer. Name and e-mail must be there, though they may be null; what else is left out is
    cleared. Read-only fields may be there, as GET gave them, and are ignored."""

    name = serializers.CharField(max_length=values.NAME_LONGEST, allow_null=True)
    email = serializers.EmailField(max_length=254, allow_null=True)

    rules = {"required": ("name", "email"), "ignored": READ_ONLY}

    def run_validation(self, data: Any = serializers.empty) -> Any:
        return {"phone": None, "address": {}, "metadata": {}} | super().run_validation(data)


class CustomerChange(CustomerInput):
    """Some fields of a customer; the others stay."""


class IntegrationState(serializers.Serializer[Any]):
    """Where a customer stands with one integration."""

    status = serializers.ChoiceField(choices=SyncState.Status.choices)
    remote_id = serializers.CharField(allow_null=True)


class CustomerOutput(serializers.Serializer[Customer]):
    """A customer as the API gives it."""

    id = serializers.UUIDField()
    name = serializers.CharField(allow_null=True)
    email = serializers.CharField(allow_null=True)
    phone = serializers.CharField(allow_null=True)
    address = Address(allow_null=True)
    metadata = serializers.DictField(child=serializers.CharField())
    version = serializers.IntegerField(help_text="1 at first, one more with every change")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    deleted_at = serializers.DateTimeField(allow_null=True)
    integrations = serializers.DictField(child=IntegrationState(), help_text="by name of the integration")

    def to_representation(self, instance: Customer) -> dict[str, Any]:
        return customer_representation(instance)


class CustomerPage(serializers.Serializer[Any]):
    """One page of the list."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    results = CustomerOutput(many=True)


class Nothing(StrictSerializer):
    """A body in which nothing can be said."""


class ErasureInput(StrictSerializer):
    """What is known about what an erasure takes with it."""

    despite_obstacles = serializers.BooleanField(
        default=False, help_text="erase also while something live hangs on a record in an integration"
    )


class ErasureOutput(serializers.Serializer[Erasure]):
    """How far the erasure of a customer has come."""

    customer_id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=["erasing", "erased"])
    requested_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True, help_text="when nothing could bring the data back")
    waits_for = serializers.ListField(child=serializers.CharField(), help_text="what is missing, in words")


def erasure_representation(erasure: Erasure) -> dict[str, Any]:
    """An erasure as JSON."""
    return {
        "customer_id": str(erasure.pk),
        "state": "erasing" if erasure.finished_at is None else "erased",
        "requested_at": instant_text(erasure.requested_at),
        "finished_at": None if erasure.finished_at is None else instant_text(erasure.finished_at),
        "waits_for": erasure.waits_for,
    }


class StateShown(Protocol):
    """What is shown of a sync state."""

    @property
    def integration(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def remote_id(self) -> str | None: ...


def customer_representation(customer: Customer, states: Iterable[StateShown] | None = None) -> dict[str, Any]:
    """A customer as JSON.

    Args:
        customer: the customer.
        states: its sync states; None fetches them, unless they were prefetched.
    """
    # Written out: a serializer would take five times as long for each row of a page.
    return {
        "id": str(customer.pk),
        "name": customer.name,
        "email": customer.email,
        "phone": customer.phone,
        "address": customer.address or None,
        "metadata": customer.metadata,
        "version": customer.version,
        "created_at": instant_text(customer.created_at),
        "updated_at": instant_text(customer.updated_at),
        "deleted_at": None if customer.deleted_at is None else instant_text(customer.deleted_at),
        "integrations": _integrations(customer, customer.sync_states.all() if states is None else states),
    }


def _integrations(customer: Customer, states: Iterable[StateShown]) -> dict[str, dict[str, str | None]]:
    """Status and remote id by integration; one that has not looked at the customer yet is pending."""
    unseen = SyncState.Status.PENDING if customer.deleted_at is None else SyncState.Status.DELETED
    found: dict[str, dict[str, str | None]] = {
        name: {"status": unseen.value, "remote_id": None} for name in settings.INTEGRATIONS
    }
    for state in states:
        found[state.integration] = {"status": str(state.status), "remote_id": state.remote_id}
    return found
