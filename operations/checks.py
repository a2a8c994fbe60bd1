"""System checks: an address of ours that is open to strangers is refused at start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.core import checks
from django.urls import URLPattern, URLResolver, get_resolver

from operations.permissions import HasScope


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


def _views(patterns: Iterable[URLPattern | URLResolver]) -> Iterator[Any]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns)
        elif (view := getattr(pattern.callback, "cls", None)) is not None:
            yield view


def _asks(permission: Any) -> bool:
    return isinstance(permission, type) and issubclass(permission, HasScope)
