"""``manage.py migrate``: Django's, with patience for locks."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate

from dbresilience.errors import LocksNotGranted
from dbresilience.lock_patience import PatientExecutor

_django: Any = migrate


class Command(migrate.Command):
    """Django's command with our executor. It makes its executor from a name of its module, and offers no other way."""

    def handle(self, *args: Any, **options: Any) -> None:
        original = _django.MigrationExecutor
        _django.MigrationExecutor = PatientExecutor
        try:
            super().handle(*args, **options)
        except LocksNotGranted as exc:
            raise CommandError(str(exc)) from exc
        finally:
            _django.MigrationExecutor = original
