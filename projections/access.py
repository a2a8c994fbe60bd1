"""Who may do what to read models: a permission for each action; for a program's key the scope to repair."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest
from rest_framework.request import Request

from operations.errors import ProblemError
from operations.models import ApiKey
from operations.scopes import Scope

RESOLVE: Final = "projections.resolve_failure"
SEE_DETAIL: Final = "projections.see_failure_detail"
REPLAY: Final = "projections.replay_build"
RESET: Final = "projections.reset_build"
REBUILD: Final = "projections.rebuild_build"


class ActionNotAllowed(ProblemError):
    """The caller may not do this."""

    status = 403
    code = "not_allowed"
    title = "Not allowed"


def may(request: HttpRequest | Request, permission: str) -> bool:
    """Whether the caller has the permission, or a key with the scope to repair."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return Scope.OPERATIONS_WRITE in key.scopes
    return bool(request.user.has_perm(permission))


def require(request: HttpRequest | Request, permission: str) -> None:
    """Refuse whoever may not.

    Raises:
        ActionNotAllowed: the caller lacks the permission, or its key the scope.
    """
    if not may(request, permission):
        raise ActionNotAllowed(f"This needs the permission {permission}.")
