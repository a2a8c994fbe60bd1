"""The declarative field table: what a parameter may hold, how long, and how it is unset.

A table maps names to fields; ``parse`` turns decoded form parameters into typed changes or raises Stripe's error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zenskar.sandbox.stripe.errors import StripeError, parameter_missing, parameter_unsupported, parameters_unknown
from zenskar.sandbox.stripe.forms import as_list

METADATA_KEYS = 50
METADATA_KEY_LENGTH = 40
METADATA_VALUE_LENGTH = 500
_EMAIL = re.compile(r"[^\s@,;<>()\[\]\\\"]+@(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?\.)+[A-Za-z0-9-]{2,63}")
_INTEGER = re.compile(r"-?[0-9]{1,18}")

Table = Mapping[str, "Field"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One parameter. ``required`` on its own; ``unsupported``: Stripe has it, this sandbox has not."""

    required: bool = False
    unsupported: bool = False

    def parse(self, name: str, value: Any) -> Any:
        return value


@dataclass(frozen=True, kw_only=True)
class Unsupported(Field):
    unsupported: bool = True


@dataclass(frozen=True, kw_only=True)
class Text(Field):
    """A string of at most ``max`` characters; the empty string unsets it (None) unless ``unset`` is false."""

    max: int = 5000
    unset: bool = True
    pattern: str | None = None

    def parse(self, name: str, value: Any) -> str | None:
        if not isinstance(value, str):
            raise StripeError(400, f"Invalid string: {_shown(value)}", param=name)
        if not value:
            if not self.unset:
                raise empty_string(name)
            return None
        if len(value) > self.max:
            shown = f"{value[:15]}...{value[-15:]}"
            raise StripeError(400, f"Invalid string: {shown}; must be at most {self.max} characters", param=name)
        if "\x00" in value:
            raise StripeError(400, "Invalid string: it contains a null byte", param=name)
        if self.pattern is not None and re.fullmatch(self.pattern, value) is None:
            raise StripeError(400, f"Invalid {name}: {value}", param=name)
        return value


@dataclass(frozen=True, kw_only=True)
class Email(Text):
    max: int = 512

    def parse(self, name: str, value: Any) -> str | None:
        text = super().parse(name, value)
        if text is not None and _EMAIL.fullmatch(text) is None:
            raise StripeError(400, f"Invalid email address: {text}", code="email_invalid", param=name)
        return text


@dataclass(frozen=True, kw_only=True)
class Integer(Field):
    minimum: int | None = None
    maximum: int | None = None

    def parse(self, name: str, value: Any) -> int:
        if not isinstance(value, str) or _INTEGER.fullmatch(value) is None:
            raise StripeError(400, f"Invalid integer: {_shown(value)}", code="parameter_invalid_integer", param=name)
        number = int(value)
        if self.minimum is not None and number < self.minimum:
            raise StripeError(
                400,
                f"This value must be greater than or equal to {self.minimum}.",
                code="parameter_invalid_integer",
                param=name,
            )
        if self.maximum is not None and number > self.maximum:
            raise StripeError(
                400,
                f"This value must be less than or equal to {self.maximum}.",
                code="parameter_invalid_integer",
                param=name,
            )
        return number


@dataclass(frozen=True, kw_only=True)
class Boolean(Field):
    def parse(self, name: str, value: Any) -> bool:
        if value not in ("true", "false"):
            raise StripeError(400, f"Invalid boolean: {_shown(value)}", param=name)
        return bool(value == "true")


@dataclass(frozen=True, kw_only=True)
class Choice(Field):
    choices: tuple[str, ...] = ()
    unset: bool = False

    def parse(self, name: str, value: Any) -> str | None:
        if value == "" and self.unset:
            return None
        if value not in self.choices:
            allowed = ", ".join(self.choices[:-1])
            raise StripeError(400, f"Invalid {name}: must be one of {allowed} or {self.choices[-1]}", param=name)
        return str(value)


@dataclass(frozen=True, kw_only=True)
class Hash(Field):
    """A nested object with a table of its own. The empty string unsets the whole of it."""

    table: Table = field(default_factory=dict)
    unset: bool = True

    def parse(self, name: str, value: Any) -> dict[str, Any] | None:
        if value == "" and self.unset:
            return None
        if not isinstance(value, dict):
            raise StripeError(400, "Invalid object", param=name)
        return parse(self.table, value, prefix=name)


@dataclass(frozen=True, kw_only=True)
class Metadata(Field):
    """Merged into what is there: an empty value unsets its key, an empty string for the whole unsets all."""

    def parse(self, name: str, value: Any) -> dict[str, str] | None:
        if value == "":
            return None
        if not isinstance(value, dict):
            raise StripeError(400, "Invalid metadata: must be a hash of strings", param=name)
        for key, text in value.items():
            if not isinstance(text, str):
                raise StripeError(400, f"Invalid string: {_shown(text)}", param=f"{name}[{key}]")
            if len(key) > METADATA_KEY_LENGTH:
                raise StripeError(
                    400,
                    f"Metadata keys can have up to {METADATA_KEY_LENGTH} characters, but you passed in a key that is "
                    f"{len(key)} characters. Invalid key: {key[:100]}",
                    param=name,
                )
            if len(text) > METADATA_VALUE_LENGTH:
                raise StripeError(
                    400,
                    f"Metadata values can have up to {METADATA_VALUE_LENGTH} characters, but you passed in a value "
                    f"that is {len(text)} characters. Invalid value: {text[:100]}",
                    param=f"{name}[{key}]",
                )
        return dict(value)


@dataclass(frozen=True, kw_only=True)
class ListOf(Field):
    item: Field = field(default_factory=Text)
    unset: bool = False
    maximum: int | None = None

    def parse(self, name: str, value: Any) -> list[Any] | None:
        if value == "" and self.unset:
            return None
        items = as_list(value)
        if items is None:
            raise StripeError(400, "Invalid array", param=name)
        if self.maximum is not None and len(items) > self.maximum:
            raise StripeError(400, f"Array must have at most {self.maximum} elements", param=name)
        return [self.item.parse(f"{name}[{position}]", item) for position, item in enumerate(items)]


@dataclass(frozen=True, kw_only=True)
class Range(Field):
    """A moment, or an interval given by ``gt``, ``gte``, ``lt``, ``lte``."""

    def parse(self, name: str, value: Any) -> dict[str, int]:
        if isinstance(value, dict):
            bounds = parse({key: Integer() for key in ("gt", "gte", "lt", "lte")}, value, prefix=name)
            return {key: int(bound) for key, bound in bounds.items()}
        return {"eq": Integer().parse(name, value)}


def parse(table: Table, params: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Typed values of ``params`` by ``table``; unknown, unsupported, missing or wrong ones raise StripeError."""

    def named(name: str) -> str:
        return f"{prefix}[{name}]" if prefix else name

    unknown = [named(name) for name in params if name not in table]
    if unknown:
        raise parameters_unknown(unknown)
    for name, wanted in table.items():
        if wanted.required and name not in params:
            raise parameter_missing(named(name))
        if wanted.unsupported and name in params:
            raise parameter_unsupported(named(name))
    return {name: table[name].parse(named(name), value) for name, value in params.items()}


def metadata_merged(present: Mapping[str, str], change: Mapping[str, str] | None) -> dict[str, str]:
    """``present`` with ``change`` applied; raises StripeError beyond METADATA_KEYS keys."""
    if change is None:
        return {}
    merged = {**present, **change}
    merged = {key: value for key, value in merged.items() if value != ""}
    if len(merged) > METADATA_KEYS:
        raise StripeError(
            400,
            f"You can only have up to {METADATA_KEYS} keys in metadata; this request would result in {len(merged)}.",
            param="metadata",
        )
    return merged


def empty_string(name: str) -> StripeError:
    return StripeError(
        400,
        f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset a parameter; "
        f"however '{name}' cannot be unset. You should remove '{name}' from your request or supply a non-empty value.",
        code="parameter_invalid_empty",
        param=name,
    )


def _shown(value: Any) -> str:
    return value[:100] if isinstance(value, str) else type(value).__name__
