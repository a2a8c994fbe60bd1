from __future__ import annotations

from django.apps import AppConfig


class DbresilienceConfig(AppConfig):
    """Retried transactions and constraint translation on PostgreSQL."""

    name = "dbresilience"
    verbose_name = "Database resilience"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.db.backends.signals import connection_created

        from dbresilience.checks import checks_register
        from dbresilience.conf import lock_settings, pool_settings, retry_settings
        from dbresilience.monitor.conf import monitor_settings
        from dbresilience.observations.processes import register_pools
        from dbresilience.observations.statements import observe_connection
        from dbresilience.postgresql.stats import pool_stats
        from dbresilience.work import connect_signals

        # A bad setting stops the start, not the first alarm.
        retry_settings()
        pool_settings()
        lock_settings()
        monitor_settings()
        connection_created.connect(observe_connection, dispatch_uid="dbresilience.observe_connection")
        register_pools(pool_stats)
        connect_signals()
        checks_register()
