from __future__ import annotations

import sys

import structlog
from django.apps import AppConfig


class DbresilienceConfig(AppConfig):
    """Retried transactions and constraint translation on PostgreSQL."""

    name = "dbresilience"
    verbose_name = "Database resilience"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        if not structlog.is_configured():
            # By default structlog prints to stdout, where commands print their answers.
            structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        from dbresilience.checks import checks_register
        from dbresilience.conf import lock_settings, pool_settings, retry_settings
        from dbresilience.monitor.conf import monitor_settings
        from dbresilience.observations.processes import register_pools
        from dbresilience.observations.statements import observation_begin
        from dbresilience.postgresql.stats import pool_stats
        from dbresilience.work import connect_signals

        # A bad setting stops the start, not the first alarm.
        retry_settings()
        pool_settings()
        lock_settings()
        monitor_settings()
        observation_begin()
        register_pools(pool_stats)
        connect_signals()
        checks_register()
