"""How commands print what they found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder


def as_json(document: Any) -> str:
    """One JSON document on one line."""
    return json.dumps(document, cls=DjangoJSONEncoder)


def named_refusals(detail: Any, names: Mapping[str, str] | None = None) -> str:
    """A validation error in one line.

    Args:
        detail: what a serializer or a service refused, by field.
        names: what the reader calls the fields; one whose name is empty is left out, and what is under it stays.
    """
    if isinstance(detail, dict):
        found = [((names or {}).get(name, name), named_refusals(value, names)) for name, value in detail.items()]
        return "; ".join(f"{name}: {text}" if name else text for name, text in found)
    if isinstance(detail, list):
        return " ".join(str(value) for value in detail)
    return str(detail)
