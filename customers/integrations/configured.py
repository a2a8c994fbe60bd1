"""The integrations that the settings name."""

from __future__ import annotations

from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from customers.integrations.adapter import Integration


@cache
def _class_of(path: str) -> type[Integration]:
    found = import_string(path)
    if not (isinstance(found, type) and issubclass(found, Integration)):
        raise ImproperlyConfigured(f"{path} in INTEGRATIONS is no Integration.")
    return found


def integration_get(name: str) -> Integration:
    """The integration of this name, made from the settings in force.

    Raises:
        LookupError: there is none of this name.
    """
    path = settings.INTEGRATIONS.get(name)
    if path is None:
        raise LookupError(f"No integration is named {name!r}.")
    return _class_of(path)()


def integrations() -> dict[str, Integration]:
    """Every integration by name."""
    return {name: integration_get(name) for name in settings.INTEGRATIONS}
