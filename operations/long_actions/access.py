"""Who may do which operation: the right to steer operations at all, and the right to what its kind does."""

from __future__ import annotations

from django.http import HttpRequest
from rest_framework.request import Request

from operations.long_actions.errors import OperationNotAllowed
from operations.long_actions.kinds import Kind
from operations.models import ApiKey
from operations.scopes import Scope


def may_steer(request: HttpRequest | Request, verb: str) -> bool:
    """Whether the caller may plan, start, pause, resume or cancel operations: a permission each; for keys one scope."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return Scope.OPERATIONS_WRITE in key.scopes
    return bool(request.user.has_perm(f"operations.{verb}_operation"))


def may_do(request: HttpRequest | Request, kind: Kind) -> bool:
    """Whether the caller may do what operations of this kind do."""
    key = getattr(request, "auth", None)
    if isinstance(key, ApiKey):
        return kind.scope in key.scopes
    return bool(request.user.has_perm(kind.permission))


def require_kind(request: HttpRequest | Request, kind: Kind) -> None:
    """Refuse whoever may not.

    Raises:
        OperationNotAllowed: the caller lacks the kind's permission, or its key the kind's scope.
    """
    if not may_do(request, kind):
        needed = str(kind.scope) if isinstance(getattr(request, "auth", None), ApiKey) else kind.permission
        raise OperationNotAllowed(f"Operations of the kind {kind.name} need {needed}.")
