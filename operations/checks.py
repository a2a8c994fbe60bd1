"""System checks: what another project may forget. Addresses that are open to strangers, addresses that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from django.contrib import admin
from django.core import checks
from django.template.loader import get_template
from django.urls import NoReverseMatch, URLPattern, URLResolver, get_resolver, reverse

from operations.permissions import HasScope

# What the console's pages link to, by the name of its address.
LINKED: Final = {
    "console-troubles": "operations.troubles.urls",
    "console-life": "operations.life.urls",
    "console-database": "operations.database.urls",
}


@checks.register(checks.Tags.security)
def check_scopes_are_asked_for(**_: Any) -> list[checks.CheckMessage]:
    """Every view that names scopes has the permission class that asks for them.

    Django REST framework opens views to everybody unless a project says otherwise.
    """
    views = dict.fromkeys(_views(get_resolver().url_patterns))
    hint = (
        'Put "operations.permissions.HasScope" into REST_FRAMEWORK["DEFAULT_PERMISSION_CLASSES"] (docs/elsewhere.md).'
    )
    return [
        checks.Error(f"{view.__module__}.{view.__name__} is open to everybody.", hint=hint, id="operations.E001")
        for view in views
        if hasattr(view, "required_scopes") and not any(_asks(one) for one in view.permission_classes)
    ]


@checks.register(checks.Tags.urls)
def check_the_console_has_its_addresses(**_: Any) -> list[checks.CheckMessage]:
    """What the console's pages link to is there, where the console is: its first page would be a 500 otherwise."""
    if not _is_console():
        return []
    return [
        checks.Error(
            f"The console links to {name!r}, which no address is named.",
            hint=f'Put path("", include("{urls}")) before the admin\'s address (docs/elsewhere.md).',
            id="operations.E002",
        )
        for name, urls in LINKED.items()
        if not _is_there(name)
    ]


@checks.register(checks.Tags.templates)
def check_the_console_has_its_looks(**_: Any) -> list[checks.CheckMessage]:
    """Our frame of the console's pages is found before Django's."""
    if not _is_console():
        return []
    origin = getattr(get_template("admin/base_site.html"), "origin", None)
    if origin is None or "operations" in Path(origin.name).parts:
        return []
    hint = 'Put "operations" before "operations.apps.ConsoleConfig" in INSTALLED_APPS (docs/elsewhere.md).'
    return [
        checks.Warning("The console looks like Django's admin, without its links.", hint=hint, id="operations.W003")
    ]


def _is_console() -> bool:
    from operations.console import ConsoleSite

    return isinstance(admin.site, ConsoleSite) and _is_there("admin:index")


def _is_there(name: str) -> bool:
    try:
        reverse(name)
    except NoReverseMatch:
        return False
    return True


def _views(patterns: Iterable[URLPattern | URLResolver]) -> Iterator[Any]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns)
        elif (view := getattr(pattern.callback, "cls", None)) is not None:
            yield view


def _asks(permission: Any) -> bool:
    return isinstance(permission, type) and issubclass(permission, HasScope)
