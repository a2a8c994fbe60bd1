"""Django's cursors, which leave word of the statement they begin."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base


class _LastStatement:
    """Keeps a reference to the statement, without its parameters, where a report of a long loan finds it."""

    connection: Any

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        self.connection.last_statement = query
        return super().execute(query, *args, **kwargs)  # type: ignore[misc]

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        self.connection.last_statement = query
        return super().executemany(query, *args, **kwargs)  # type: ignore[misc]


class Cursor(_LastStatement, base.Cursor):
    """Binds parameters in the client, as Django does by default."""


class ServerBindingCursor(_LastStatement, base.ServerBindingCursor):
    """Binds parameters in the server, for ``OPTIONS["server_side_binding"]``."""
