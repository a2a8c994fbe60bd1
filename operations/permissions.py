"""Who may call a view of the API. Closed by default: a view that names no scopes is refused to everybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from operations.errors import ScopeMissing
from operations.models import ApiKey
from operations.scopes import Scope, permission_codename

if TYPE_CHECKING:
    # Imports this module itself, through the framework's settings.
    from rest_framework.views import APIView


class HasScope(BasePermission):
    """Asks for the scope that the view declares: ``required_scopes = {"read": "…", "write": "…"}``.

    Safe methods need the ``read`` scope, all others the ``write`` scope. A staff session has the scopes that the
    person's permissions give (see ``operations.roles``).
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        if request.successful_authenticator is None:
            return False
        if request.method is None or request.method.lower() not in view.http_method_names:
            return True  # Answered with 405 by the view.
        if not hasattr(view, request.method.lower()):
            return True
        required: Mapping[str, str] = getattr(view, "required_scopes", {})
        scope = required.get("read" if request.method in SAFE_METHODS else "write")
        if scope is None:
            raise ScopeMissing("This address is open to nobody.")
        if scope not in scopes_of(request):
            raise ScopeMissing(
                f"This needs the scope {scope}.",
                headers={"WWW-Authenticate": f'Bearer realm="zenskar", error="insufficient_scope", scope="{scope}"'},
            )
        return True


def require(request: Request, permission: str) -> None:
    """Refuse a person without the permission of what is to be done; programs have the scope of their key.

    The view has looked at the scope already. A scope lets a person use the API; what they may do there is what they may
    do in the console.

    Raises:
        ScopeMissing: a person without the permission.
    """
    if not isinstance(request.auth, ApiKey) and not request.user.has_perm(permission):
        raise ScopeMissing(f"This needs the permission {permission}.")


def scopes_of(request: Request) -> frozenset[str]:
    """The scopes of whoever sent the request."""
    if isinstance(request.auth, ApiKey):
        return frozenset(request.auth.scopes)
    user = request.user
    if not (user.is_active and user.is_staff):
        return frozenset()
    return frozenset(scope.value for scope in Scope if user.has_perm(f"operations.{permission_codename(scope.value)}"))
