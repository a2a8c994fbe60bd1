from __future__ import annotations

from django.apps import AppConfig


class ProjectionsConfig(AppConfig):
    """Read models built from the log."""

    name = "projections"
    verbose_name = "Projections"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from projections import checks  # noqa: F401 - registers itself
        from projections.conf import projection_settings

        # A bad setting stops the start, not the first use.
        projection_settings()
