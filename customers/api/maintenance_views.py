"""Keeping both sides the same, over HTTP: what is small is done before the answer, all else is an operation to poll."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers
from rest_framework.request import Request

from customers.api import maintenance_descriptions as descriptions
from customers.errors import InvalidQuery
from customers.sync.trying_again import RetryFailedSyncs, integration_named
from operations.api.begun import BeginningView
from operations.errors import FieldError
from operations.long_actions.kinds import Kind
from operations.serializers import StrictSerializer, query_values


class IntegrationQuery(StrictSerializer):
    """Which integration."""

    integration_name = serializers.CharField(max_length=32, default="", validators=[integration_named])


class DryRunQuery(IntegrationQuery):
    """Which integration, and whether anything is done."""

    dry_run = serializers.BooleanField(default=False)


class NoBody(StrictSerializer):
    """Nothing is said in the body; an empty object may be sent."""


@descriptions.retry_failed_syncs
class RetryFailedSyncsView(BeginningView):
    """Failed synchronisations, tried again."""

    kind: ClassVar[Kind] = RetryFailedSyncs()

    def filter_of(self, request: Request) -> dict[str, Any]:
        return {"integration": query_of(request, IntegrationQuery)["integration_name"]}


def query_of(request: Request, serializer: type[StrictSerializer]) -> dict[str, Any]:
    """The parameters of the address; the body must be empty.

    Raises:
        InvalidQuery: a parameter is unknown, given twice or not valid.
        ValidationError: the body says something.
    """
    given = {name: value for name, value in query_values(request).items() if name != "format"}
    found = serializer(data=given)
    if not found.is_valid():
        raise InvalidQuery(
            [
                FieldError(parameter=str(name)[:100], code=str(error.code), detail=str(error))
                for name, errors in found.errors.items()
                for error in errors
            ]
        )
    if request.method != "GET":
        NoBody(data=request.data or {}).is_valid(raise_exception=True)
    values: dict[str, Any] = found.validated_data
    return values
