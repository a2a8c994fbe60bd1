from __future__ import annotations

from django.apps import AppConfig, apps
from django.contrib.admin import apps as admin_apps


class OperationsConfig(AppConfig):
    """What operators do, and who may do it."""

    name = "operations"
    verbose_name = "Operations"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # As the console calls them, in its lists and in the path above each page.
        for label, title in (("auth", "People"), ("django_celery_beat", "Schedule")):
            if apps.is_installed(f"django.contrib.{label}") or apps.is_installed(label):
                apps.get_app_config(label).verbose_name = title

        from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
        from django.db.models.signals import post_migrate

        from operations import (
            checks,  # noqa: F401 - registers itself
            logins,
            metrics,
            overview,
            recording,
            roles,
            tiles,
        )
        from operations.alerts.conf import alert_settings
        from operations.alerts.own import register_own
        from operations.conf import access_settings, retention_settings
        from operations.database import tile
        from operations.database.metrics import DatabaseCollector
        from operations.idempotency.conf import idempotency_settings
        from operations.life import own
        from operations.life.sources import register
        from operations.locks.metrics import LockCollector
        from operations.troubles import tile as troubles_tile
        from operations.troubles.metrics import TroubleCollector

        recording.recorder_ensure()
        # A bad setting stops the start, not the first use.
        access_settings()
        alert_settings()
        idempotency_settings()
        retention_settings()
        overview.register("Database", tile.database, permission="operations.scope_operations_read", order=80)
        overview.register("Troubles", troubles_tile.troubles, order=5)
        metrics.SCRAPED.register(DatabaseCollector())
        metrics.SCRAPED.register(TroubleCollector())
        metrics.SCRAPED.register(LockCollector())
        register_own()
        register(own.Calls())
        register(own.Audit())
        overview.register("API keys", tiles.access, permission="operations.view_apikey", order=90)
        post_migrate.connect(roles.roles_restate)
        user_logged_in.connect(logins.record_login)
        user_logged_out.connect(logins.record_logout)
        user_login_failed.connect(logins.record_failure)


class ConsoleConfig(admin_apps.AdminConfig):
    """Django's admin, with the console's own site."""

    default = False
    default_site = "operations.console.ConsoleSite"
