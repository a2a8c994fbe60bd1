"""Scopes: what a caller of the API may do. A key carries them; a person has them through permissions."""

from __future__ import annotations

from typing import Final

from django.db import models


class Scope(models.TextChoices):
    """One right, named ``<area>:<read or write>``."""

    CUSTOMERS_READ = "customers:read", "read customers"
    CUSTOMERS_WRITE = "customers:write", "create, change and delete customers"
    CUSTOMERS_ERASE = "customers:erase", "erase customers' personal data"
    CUSTOMERS_EXPORT = "customers:export", "export customers' data"
    OPERATIONS_READ = "operations:read", "see events, failures and health"
    OPERATIONS_WRITE = "operations:write", "retry, replay and repair"
    METRICS_READ = "metrics:read", "scrape metrics"


def permission_codename(scope: str) -> str:
    """The codename of the Django permission that gives a person this scope."""
    return "scope_" + scope.replace(":", "_")


SCOPE_PERMISSIONS: Final = [(permission_codename(scope.value), f"Can use the API to {scope.label}") for scope in Scope]
