"""The tables of builds, made of the shapes that migrations left, and the views that readers see."""

from __future__ import annotations

from typing import Final

from django.db import ProgrammingError, connection, transaction

from projections.projection import Projection, Table

# A build's tables are like the shape in everything: columns, defaults, checks, indexes.
MAKE_SQL: Final = """
DROP TABLE IF EXISTS "{table}";
CREATE TABLE "{table}" (LIKE "{shape}" INCLUDING ALL)
"""
DROP_SQL: Final = 'DROP TABLE IF EXISTS "{table}"'
# Readers of the view wait for this transaction, and it waits for readers that have begun: both for a moment only.
VIEW_SQL: Final = 'CREATE OR REPLACE VIEW "{view}" AS SELECT * FROM "{table}"'
# Where a new version lacks or retypes a column, the view cannot be replaced in place.
NEW_VIEW_SQL: Final = 'DROP VIEW IF EXISTS "{view}"; CREATE VIEW "{view}" AS SELECT * FROM "{table}"'
PATIENCE_SQL: Final = "SELECT set_config('lock_timeout', '500ms', true)"


def tables_make(projection: Projection, build_id: int) -> None:
    """Make the empty tables of a build, in the current transaction."""
    for table in projection.tables:
        _execute(MAKE_SQL.format(table=table.of_build(build_id), shape=table.shape))


def tables_drop(tables: tuple[Table, ...], build_id: int) -> None:
    """Drop the tables of a build; nobody reads them any more."""
    for table in tables:
        _execute(DROP_SQL.format(table=table.of_build(build_id)))


def views_point(projection: Projection, build_id: int) -> None:
    """Let readers see the tables of this build from the current transaction's commit on.

    Raises:
        django.db.OperationalError: a reader that has begun did not end soon enough; nothing changed.
    """
    _execute(PATIENCE_SQL)
    for table in projection.tables:
        try:
            with transaction.atomic():
                _execute(VIEW_SQL.format(view=table.name, table=table.of_build(build_id)))
        except ProgrammingError:
            _execute(NEW_VIEW_SQL.format(view=table.name, table=table.of_build(build_id)))


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
