"""How the synchronisation of a customer looks in the API's description, and what a decision about it may say."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from customers.models import Conflict, SyncRequest, SyncState
from operations.serializers import KnownField, StrictSerializer


class SyncErrorOutput(serializers.Serializer[Any]):
    """What went wrong last."""

    code = serializers.CharField()
    message = serializers.CharField()

    def get_fields(self) -> dict[str, Any]:
        # "class" cannot be an attribute's name.
        return {"class": serializers.CharField(), **super().get_fields()}


class DriftFieldOutput(serializers.Serializer[Any]):
    """A field that is not the same everywhere."""

    field = serializers.CharField(help_text="as name or metadata.plan")
    changed = serializers.ChoiceField(choices=["here", "there", "both"], help_text="since both sides agreed")
    base = serializers.JSONField(allow_null=True, help_text="agreed last")
    ours = serializers.JSONField(allow_null=True)
    theirs = serializers.JSONField(allow_null=True)


class DriftOutput(serializers.Serializer[Any]):
    """What differs between both sides."""

    as_of = serializers.DateTimeField(allow_null=True)
    remote = serializers.ChoiceField(
        choices=["as_of_last_look", "present", "deleted", "missing", "unlinked", "unknown"]
    )
    fields_ = DriftFieldOutput(many=True)
    error = SyncErrorOutput(allow_null=True, help_text="why the integration could not be asked")

    def get_fields(self) -> dict[str, Any]:
        found = super().get_fields()
        return {"as_of": found["as_of"], "remote": found["remote"], "fields": found["fields_"], "error": found["error"]}


class RequestInFlightOutput(serializers.Serializer[Any]):
    """A request whose outcome is not known."""

    method = serializers.ChoiceField(choices=SyncRequest.Method.choices)
    first_sent_at = serializers.DateTimeField()
    last_sent_at = serializers.DateTimeField()
    sends = serializers.IntegerField()


class ConflictOutput(serializers.Serializer[Any]):
    """What a person must decide."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=Conflict.Kind.choices)
    field = serializers.CharField(allow_null=True)
    base = serializers.JSONField(allow_null=True)
    ours = serializers.JSONField(allow_null=True)
    theirs = serializers.JSONField(allow_null=True)
    detail = serializers.CharField()
    opened_at = serializers.DateTimeField()
    takes = serializers.ListField(
        child=serializers.CharField(), help_text="whose value a resolution may take: ours, theirs"
    )


class IntegrationHealth(serializers.Serializer[Any]):
    """One customer in one integration."""

    status = serializers.ChoiceField(choices=SyncState.Status.choices)
    remote_id = serializers.CharField(allow_null=True)
    account = serializers.CharField(allow_null=True)
    livemode = serializers.BooleanField()
    dirty_since = serializers.DateTimeField(allow_null=True, help_text="null: nothing is to be done")
    priority = serializers.ChoiceField(choices=["interactive", "webhook", "bulk"], allow_null=True)
    being_looked_at = serializers.BooleanField()
    attempts = serializers.IntegerField(help_text="failures in a row")
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    last_success_at = serializers.DateTimeField(allow_null=True)
    last_error = SyncErrorOutput(allow_null=True)
    request_in_flight = RequestInFlightOutput(allow_null=True)
    conflicts = ConflictOutput(many=True, help_text="open ones")
    drift = DriftOutput()


class SyncHealthOutput(serializers.Serializer[Any]):
    """Where a customer stands in each integration."""

    customer_id = serializers.UUIDField()
    version = serializers.IntegerField()
    deleted_at = serializers.DateTimeField(allow_null=True)
    integrations = serializers.DictField(child=IntegrationHealth(), help_text="by name of the integration")


class ResolutionInput(StrictSerializer):
    """A decision."""

    take = KnownField(choices=["ours", "theirs"], help_text="whose value holds")
    reason = serializers.CharField(
        max_length=500, required=False, allow_blank=True, default="", help_text="why, for the audit trail"
    )


class ResolutionOutput(serializers.Serializer[Any]):
    """A conflict that was decided."""

    id = serializers.IntegerField()
    field = serializers.CharField()
    resolution = serializers.CharField(help_text="what was decided, and by whom")
    resolved_at = serializers.DateTimeField()
