"""How commands print what they found."""

from __future__ import annotations

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder


def as_json(document: Any) -> str:
    """One JSON document on one line."""
    return json.dumps(document, cls=DjangoJSONEncoder)


def named_refusals(detail: Any) -> str:
    """A validation error in one line."""
    if isinstance(detail, dict):
        return "; ".join(f"{name}: {named_refusals(value)}" for name, value in detail.items())
    if isinstance(detail, list):
        return " ".join(str(value) for value in detail)
    return str(detail)
