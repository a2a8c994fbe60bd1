from __future__ import annotations

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """The commit-ordered log of events and its subscribers."""

    name = "outbox"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from outbox import checks  # noqa: F401 - registers itself
