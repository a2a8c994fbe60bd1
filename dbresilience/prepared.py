"""Statements that a session keeps, for those that are sent with request after request.

Django's cursors put the values into the text, so PostgreSQL parses and plans each statement anew; of a short one that
takes three times as long as running it. A kept statement is parsed and planned once in each session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from dbresilience.postgresql.cursors import ServerBindingCursor
from dbresilience.typed_settings import truth


class _KeepingCursor(ServerBindingCursor):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        return super().execute(query, params, prepare=True, **options)


def prepared_rows(sql: str, params: Mapping[str, Any], *, using: str = DEFAULT_DB_ALIAS) -> list[tuple[Any, ...]]:
    """The rows of a statement that the session keeps from the first time on.

    For constant texts whose plan does not depend on the values, and whose columns no migration gives another type: a
    session that kept the statement before is refused its answer after. Behind PgBouncer nothing is kept, for the next
    one may be run by another session.

    Args:
        sql: returns rows, and says of which type its parameters are where the columns do not: they are bound in the
            server.
        params: by name.
        using: alias of the database.
    """
    connection = connections[using]
    with connection.cursor() as cursor:
        if connection.queries_logged:
            # Whoever reads the statements wants to see them with their values.
            cursor.execute(sql, params)
            return list(cursor.fetchall())
        session = cursor.connection
        threshold = session.prepare_threshold
        # Django switches preparing off. Whoever asks for it in another way is not to find it switched on.
        session.prepare_threshold = None if truth("DB_PGBOUNCER", default=False) else 0
        cursor.cursor = _KeepingCursor(session)  # type: ignore[call-arg]
        try:
            cursor.execute(sql, params)
            return list(cursor.fetchall())
        finally:
            session.prepare_threshold = threshold
