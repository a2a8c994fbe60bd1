"""The Celery application: ``celery -A zenskar.celery worker`` and ``… beat``."""

from __future__ import annotations

import os
from typing import Any

import django
from celery import Celery, Task
from celery.signals import setup_logging
from django.apps import apps
from django_structlog.celery.steps import DjangoStructLogInitStep

from operations.correlation import correlation_id, work_bound
from operations.tracing import traceparent
from zenskar.starting import wrong_settings_told

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zenskar.settings")


class CorrelatedTask(Task):  # type: ignore[type-arg]
    """A task whose run has a correlation id of its own, in its log lines and in the events that it publishes."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with work_bound(self.name or "task", correlation=correlation_id(), traceparent=traceparent(), kind="consumer"):
            return super().__call__(*args, **kwargs)


app = Celery("zenskar", task_cls=CorrelatedTask)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.steps["worker"].add(DjangoStructLogInitStep)
app.autodiscover_tasks()


@setup_logging.connect
def keep_our_logging(**_: Any) -> None:
    """Receiver that keeps Celery from replacing the logging that Django set up; being connected is enough."""


if not apps.apps_ready:
    # Celery was started first, not Django: it would set Django up too, and tell a wrong setting with a traceback.
    with wrong_settings_told():
        django.setup()
