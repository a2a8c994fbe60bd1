"""Payloads for those who may not read them: the shape stays, the values go."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest
from rest_framework.request import Request

from operations.models import ApiKey
from operations.scopes import Scope

MASK: Final = "•••"
PERMISSION: Final = "outbox.read_payload"
LARGEST_SHOWN: Final = 20_000
"""Characters of a payload on a page that did not ask for all of it."""


def may_read_payload(request: HttpRequest | Request) -> bool:
    """Whether the caller may read what events say of people; for keys the right to repair is asked for."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return Scope.OPERATIONS_WRITE in key.scopes
    return bool(request.user.has_perm(PERMISSION))


def payload_masked(value: Any) -> Any:
    """The same names and lists, with every value masked; null and truth values tell nothing and stay."""
    if isinstance(value, dict):
        return {name: payload_masked(one) for name, one in value.items()}
    if isinstance(value, list):
        return [payload_masked(one) for one in value[:20]]
    return value if value is None or isinstance(value, bool) else MASK
