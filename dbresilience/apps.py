from __future__ import annotations

from django.apps import AppConfig


class DbresilienceConfig(AppConfig):
    """Retried transactions and constraint translation on PostgreSQL."""

    name = "dbresilience"
    verbose_name = "Database resilience"
    default_auto_field = "django.db.models.BigAutoField"
