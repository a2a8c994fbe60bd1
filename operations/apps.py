from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class OperationsConfig(AppConfig):
    """What operators do, and who may do it."""

    name = "operations"
    verbose_name = "Operations"
    default_auto_field = "django.db.models.BigAutoField"


class ConsoleConfig(admin_apps.AdminConfig):
    """Django's admin, with the console's own site."""

    default = False
    default_site = "operations.console.ConsoleSite"
