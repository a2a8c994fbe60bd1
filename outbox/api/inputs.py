"""What the API of the outbox takes in."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from rest_framework import serializers

from operations.serializers import KnownField, StrictSerializer
from outbox.errors import ErrorClass
from outbox.lanes import LANES
from outbox.models import ParkedState

REASON_LENGTH = 1_000
_SIZE = 100
_LARGEST_ID = 2**63 - 1


class Nothing(StrictSerializer):
    """A body or query without any field."""


class DeadLetterQuery(StrictSerializer):
    """Which dead deliveries, newest first."""

    page_size = serializers.IntegerField(min_value=1, max_value=500, default=_SIZE)
    cursor = serializers.IntegerField(min_value=1, max_value=_LARGEST_ID, required=False)
    subscriber = serializers.CharField(max_length=100, required=False)
    topic = serializers.CharField(max_length=150, required=False)
    event_type = serializers.CharField(max_length=100, required=False)
    aggregate_id = serializers.CharField(max_length=255, required=False)
    error_class = KnownField(choices=ErrorClass.values, required=False)
    error_code = serializers.CharField(max_length=100, required=False)
    fingerprint = serializers.CharField(max_length=64, required=False)


class ConsumedQuery(StrictSerializer):
    """Which consumed messages, newest first."""

    state = KnownField(choices=ParkedState.values, default=ParkedState.DEAD.value)
    page_size = serializers.IntegerField(min_value=1, max_value=500, default=_SIZE)
    cursor = serializers.IntegerField(min_value=1, max_value=_LARGEST_ID, required=False)
    group = serializers.CharField(max_length=100, required=False)
    topic = serializers.CharField(max_length=150, required=False)
    code = serializers.CharField(max_length=100, required=False)
    fingerprint = serializers.CharField(max_length=64, required=False)


class PendingQuery(StrictSerializer):
    """How many of those that wait, oldest first."""

    page_size = serializers.IntegerField(min_value=1, max_value=500, default=_SIZE)


class GroupQuery(StrictSerializer):
    """Of which subscriber."""

    subscriber = serializers.CharField(max_length=100, required=False)


class Reason(StrictSerializer):
    """Why, for the audit trail."""

    reason = serializers.CharField(max_length=REASON_LENGTH)


class OptionalReason(StrictSerializer):
    """Why, for the audit trail, if there is more to say."""

    reason = serializers.CharField(max_length=REASON_LENGTH, required=False, allow_blank=True, default="")


class Replace(Reason):
    """The payload of the event that is to be published instead."""

    payload = serializers.DictField()


class Pause(Reason):
    """Why, and until when; without an end a person must resume it."""

    until = serializers.DateTimeField(required=False, allow_null=True, default=None)

    def validate_until(self, value: Any) -> Any:
        if value is not None and value <= timezone.now():
            raise serializers.ValidationError("This moment is over already.")
        return value


class Limits(StrictSerializer):
    """Limits to be changed; null is as the subscriber declares, and what is left out stays."""

    rate_limit = serializers.FloatField(required=False, allow_null=True, min_value=0.001, max_value=1_000_000)
    concurrency = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=LANES)
    keep_successes = serializers.BooleanField(required=False)


class Republish(Reason):
    """Which places of the log."""

    first_position = serializers.IntegerField(min_value=1, max_value=_LARGEST_ID)
    last_position = serializers.IntegerField(min_value=1, max_value=_LARGEST_ID)
    dry_run = serializers.BooleanField(default=False)
