"""Changes of the schema, on which no statement has a time-out of ours."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Self

from django.db.backends.postgresql import schema

from dbresilience.timeouts import without_command_timeout


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """Django's, under which every migration runs: building an index takes as long as it takes."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._unlimited = ExitStack()
        if not self.collect_sql:
            self._unlimited.enter_context(without_command_timeout(using=self.connection.alias))
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        # The stack is closed last: what was deferred runs in here, and belongs to the migration.
        with self._unlimited:
            super().__exit__(exc_type, exc_value, traceback)
