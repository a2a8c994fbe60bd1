from __future__ import annotations

from django.apps import AppConfig


class ProjectionsConfig(AppConfig):
    """Read models built from the log."""

    name = "projections"
    verbose_name = "Projections"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from operations import overview
        from operations.alerts import sources as alert_sources
        from operations.life.sources import register as life_register
        from operations.long_actions.kinds import register
        from operations.metrics import SCRAPED
        from operations.troubles import sources
        from outbox.retention import reader_register
        from projections import alerts, checks  # noqa: F401 - the checks register themselves
        from projections.beginning import log_done_through
        from projections.conf import projection_settings
        from projections.console.tile import read_models
        from projections.life import ReadModelsLife
        from projections.metrics import ProjectionsCollector
        from projections.replaying import ReplayKind
        from projections.troubles import ManualFailures

        # A bad setting stops the start, not the first use.
        projection_settings()
        register(ReplayKind())
        overview.register("Read models", read_models, permission="projections.view_build", order=25)
        sources.register(ManualFailures())
        SCRAPED.register(ProjectionsCollector())
        alert_sources.register("projections", alerts.conditions)
        life_register(ReadModelsLife())
        reader_register("a read model", log_done_through)
