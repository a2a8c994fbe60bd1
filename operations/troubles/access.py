"""Who may see and retry which troubles."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.request import Request

from operations.models import ApiKey
from operations.scopes import Scope
from operations.troubles.sources import TroubleSource, sources


def may_view(request: HttpRequest | Request, source: TroubleSource) -> bool:
    """Whether the caller may see troubles of this source; keys need the scope ``operations:read`` alone."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return Scope.OPERATIONS_READ in key.scopes
    return bool(request.user.has_perm(source.view_permission))


def may_retry(request: HttpRequest | Request, source: TroubleSource) -> bool:
    """Whether the caller may have troubles of this source tried again."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return {Scope.OPERATIONS_WRITE, source.scope} <= set(key.scopes)
    return bool(request.user.has_perm(source.retry_permission))


def may_note(request: HttpRequest | Request) -> bool:
    """Whether the caller may write notes on groups."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return Scope.OPERATIONS_WRITE in key.scopes
    return bool(request.user.has_perm("operations.write_troublenote"))


def sources_for(request: HttpRequest | Request) -> list[TroubleSource]:
    """The sources that the caller may see."""
    return [source for source in sources() if may_view(request, source)]
