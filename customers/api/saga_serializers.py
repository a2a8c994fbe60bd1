"""How a protected change looks in the API's description."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from customers.api.sync_serializers import SyncErrorOutput
from customers.models import Saga, SagaStep


class SagaStepErrorOutput(serializers.Serializer[Any]):
    """Why a step was refused."""

    code = serializers.CharField()
    message = serializers.CharField()


class SagaStepOutput(serializers.Serializer[Any]):
    """One step."""

    number = serializers.IntegerField()
    step = serializers.ChoiceField(choices=SagaStep.Kind.choices)
    integration = serializers.CharField(allow_null=True)
    status = serializers.ChoiceField(choices=SagaStep.Status.choices)
    attempts = serializers.IntegerField()
    undo_attempts = serializers.IntegerField()
    error = SagaStepErrorOutput(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class SagaProblemOutput(serializers.Serializer[Any]):
    """Why it was undone, as whoever asked for it was told."""

    status = serializers.IntegerField()
    code = serializers.CharField()
    title = serializers.CharField()
    detail = serializers.CharField()


class SagaOutput(serializers.Serializer[Any]):
    """A protected change."""

    id = serializers.UUIDField()
    action = serializers.ChoiceField(choices=Saga.Action.choices)
    customer_id = serializers.UUIDField(help_text="of a create that is not done there is no such customer")
    status = serializers.ChoiceField(choices=Saga.Status.choices)
    fields_ = serializers.ListField(child=serializers.CharField(), help_text="what it changes")
    steps = SagaStepOutput(many=True)
    problem = SagaProblemOutput(allow_null=True)
    attempts = serializers.IntegerField(help_text="failures since the last step went on")
    last_error = SyncErrorOutput(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)

    def get_fields(self) -> dict[str, Any]:
        # "fields" cannot be an attribute's name.
        return {name.removesuffix("_"): field for name, field in super().get_fields().items()}


class SagaPageOutput(serializers.Serializer[Any]):
    """Some of them."""

    next = serializers.URLField(allow_null=True)
    results = SagaOutput(many=True)
