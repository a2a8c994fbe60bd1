"""Statements that a session keeps, for those that are sent with request after request.

Django's cursors put the values into the text, so PostgreSQL parses and plans each statement anew; of a short one that
takes three times as long as running it. A kept statement is parsed and planned once in each session.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, Error, connections

from dbresilience.errors import ConnectionLost
from dbresilience.postgresql.cursors import ServerBindingCursor
from dbresilience.sqlstate import sqlstate_of
from dbresilience.typed_settings import truth

# The session no longer has the statement (invalid_sql_statement_name), or keeps a plan for a table that has other
# columns now (feature_not_supported). Neither ran anything.
_STALE: Final = frozenset({"26000", "0A000"})


class _KeepingCursor(ServerBindingCursor):
    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        return super().execute(query, params, prepare=True, **options)


def prepared_rows(sql: str, params: Mapping[str, Any], *, using: str = DEFAULT_DB_ALIAS) -> list[tuple[Any, ...]]:
    """The rows of a statement that the session keeps from the first time on.

    For constant texts whose plan does not depend on the values. A session that has lost what it kept, or whose tables
    were given other columns meanwhile, is closed: outside of a transaction the statement is repeated in another one,
    and inside it is the transaction that is to be run again. Behind PgBouncer nothing is kept, for the next one may be
    run by another session.

    Args:
        sql: returns rows, and says of which type its parameters are where the columns do not: they are bound in the
            server.
        params: by name.
        using: alias of the database.

    Raises:
        ConnectionLost: in a transaction, which did not commit: the session was closed, as said above.
    """
    try:
        return _rows(sql, params, using)
    except Error as exc:
        if sqlstate_of(exc) not in _STALE:
            raise
        connection = connections[using]
        connection.connection.close()
        if connection.in_atomic_block:
            raise ConnectionLost("The session no longer has a statement that it kept.") from exc
    connection.close()
    return _rows(sql, params, using)


def _rows(sql: str, params: Mapping[str, Any], using: str) -> list[tuple[Any, ...]]:
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
