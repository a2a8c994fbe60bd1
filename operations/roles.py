"""The shipped roles: groups that say what a member of staff may see and do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.apps import AppConfig, apps
from django.contrib.auth.models import Group, Permission
from django.db import DEFAULT_DB_ALIAS

from operations.scopes import Scope, permission_codename

VIEWER: Final = "viewer"
OPERATOR: Final = "operator"
ADMIN: Final = "admin"
ROLES: Final = (VIEWER, OPERATOR, ADMIN)

OWN_APPS: Final = frozenset({"customers", "projections", "outbox", "operations", "dbresilience"})
ACCESS_APPS: Final = frozenset({"auth", "django_celery_beat"})
"""Who may log in, and what runs when: for admins alone."""

_VIEWER_SCOPES: Final = {permission_codename(scope) for scope in (Scope.CUSTOMERS_READ, Scope.OPERATIONS_READ)}
_ADMIN_SCOPES: Final = {
    permission_codename(scope) for scope in (Scope.METRICS_READ, Scope.CUSTOMERS_ERASE, Scope.CUSTOMERS_EXPORT)
}
_SCOPES: Final = {permission_codename(scope) for scope in Scope}
_OPERATING: Final = {f"{verb}_operation" for verb in ("plan", "start", "pause", "resume", "cancel")} | {
    "write_troublenote"
}
# Verbs for admins alone, whatever app they are in: they cannot be undone, or carry data away.
_ADMINISTERING: Final = ("erase_", "export_")


def roles_restate(sender: AppConfig, using: str = DEFAULT_DB_ALIAS, apps: Any = apps, **_: Any) -> None:
    """Give the shipped roles their permissions on the app just migrated; a receiver of ``post_migrate``.

    Permissions exist only after their app's migrations ran, so a migration of ours could not name them. What is missing
    is added, nothing is taken away: a role that somebody widened stays wide. The rule is by app and action, so a new
    model or a new action of an app needs no line here:

    * viewer: view everything of ours; the reading scopes.
    * operator: also every other right on our apps, of this one only those to steer operations and to note
      troubles; not to erase people or to carry their data away; all scopes but those two and ``metrics:read``.
    * admin: everything, people, keys and schedules included.

    Args:
        sender: the app; the signal is sent for each that is installed.
        using: alias of the database.
        apps: the models as of the last migration that ran. Without those of ``auth`` (one app was migrated alone) there
            is no table for roles yet; the run that makes it sends the signal for all apps again.
    """
    if sender.label not in OWN_APPS | ACCESS_APPS or "auth" not in apps.all_models:
        return
    groups = {name: Group.objects.using(using).get_or_create(name=name)[0] for name in ROLES}
    permissions = list(Permission.objects.using(using).filter(content_type__app_label=sender.label))
    through = Group.permissions.through
    rows = [
        through(group_id=groups[role].pk, permission_id=permission.pk)
        for permission in permissions
        for role in _roles_with(sender.label, permission.codename)
    ]
    # The table's unique constraint decides: two deployments that migrate at once both pass.
    through._default_manager.using(using).bulk_create(rows, ignore_conflicts=True)


def _roles_with(app: str, codename: str) -> Iterator[str]:
    yield ADMIN
    if app in ACCESS_APPS:
        return
    if codename in _SCOPES:
        if codename in _VIEWER_SCOPES:
            yield VIEWER
        if codename not in _ADMIN_SCOPES:
            yield OPERATOR
    elif codename.startswith("view_"):
        yield VIEWER
        yield OPERATOR
    elif not codename.startswith(_ADMINISTERING) and (app != "operations" or codename in _OPERATING):
        yield OPERATOR
