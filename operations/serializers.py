"""The base class of what the API takes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

from rest_framework import serializers
from rest_framework.request import Request


def query_values(request: Request) -> dict[str, str]:
    """The parameters of the address, each given once.

    Two readers may take different ones of several; the one that checks must not differ from the one that acts.

    Raises:
        ValidationError: one was given more than once.
    """
    repeated = [name for name, given in request.query_params.lists() if len(given) > 1]
    if repeated:
        once = "This may be given once."
        raise serializers.ValidationError({name: [once] for name in repeated}, "repeated_parameter")
    return {name: str(given[0]) for name, given in request.query_params.lists() if given}


class KnownField(serializers.ChoiceField):
    """One of some words; whoever sends another is told which there are."""

    default_error_messages: ClassVar[dict[str, Any]] = {"invalid_choice": '"{input}" is none of: {choices}.'}

    def fail(self, key: str, **values: Any) -> NoReturn:
        super().fail(key, choices=", ".join(map(str, self.choices)), **values)


class StrictSerializer(serializers.Serializer[Any]):
    """A serializer that refuses fields it does not know, each with its pointer.

    A mistyped name is an error of the caller, not a wish to be ignored.

    Attributes:
        ignores_read_only: whether read-only fields may be sent and are ignored, so that what GET gave can be PUT back;
            otherwise they are refused.
    """

    ignores_read_only: ClassVar[bool] = False

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)
        refused: dict[str, list[serializers.ErrorDetail]] = {}
        for name in data:
            field = self.fields.get(str(name))
            if field is None:
                refused[str(name)] = [serializers.ErrorDetail("There is no such field.", code="unknown_field")]
            elif field.read_only and not self.ignores_read_only:
                refused[str(name)] = [serializers.ErrorDetail("This field cannot be set.", code="read_only_field")]
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as exc:
            if refused and isinstance(exc.detail, dict):
                raise serializers.ValidationError({**exc.detail, **refused}) from exc
            raise
        if refused:
            raise serializers.ValidationError(refused)
        return value
