"""Puts the views back on their empty shapes and drops the tables of builds, whose rows the next test does not have."""

from __future__ import annotations

from django.db import connection


def builds_drop(*views: str) -> None:
    with connection.cursor() as cursor:
        for view in views:
            cursor.execute(f'CREATE OR REPLACE VIEW "{view}" AS SELECT * FROM "{view}_shape"')
            cursor.execute("SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ %s", [f"^{view}_[0-9]+$"])
            for (table,) in cursor.fetchall():
                cursor.execute(f'DROP TABLE "{table}"')
