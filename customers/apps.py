from __future__ import annotations

from django.apps import AppConfig


class CustomersConfig(AppConfig):
    """The customer catalogue and its synchronisation with integrations."""

    name = "customers"
    verbose_name = "Customers"
    default_auto_field = "django.db.models.BigAutoField"
