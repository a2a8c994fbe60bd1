"""The project as an application: what must be in place in every process."""

from __future__ import annotations

import atexit
import gc

from django.apps import AppConfig


class ZenskarConfig(AppConfig):
    """Binds Celery's tasks to our broker and registers what readiness means."""

    name = "zenskar"
    verbose_name = "Zenskar"

    def ready(self) -> None:
        # Without the import, `shared_task` in a web process would look for a broker on Celery's default address.
        from zenskar import celery  # noqa: F401
        from zenskar.health import register_components

        register_components()
        # At the end of a process Python visits all that it ever made once more, to free what the system frees anyway:
        # a third of a second of each process of ours. What is frozen is not visited.
        atexit.register(gc.freeze)
