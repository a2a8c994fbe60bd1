"""Looking for words in the whole database: every column of every row, whatever its type."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection

_TABLES_SQL = """
SELECT c.oid::regclass::text, a.attname, format_type(a.atttypid, NULL)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relkind = 'r' AND n.nspname = 'public' ORDER BY 1, a.attnum
"""


def places_of(words: Iterable[str]) -> list[str]:
    """``table.column`` of every column in which one of the words stands, in any case; bytes are read as text too."""
    found = []
    with connection.cursor() as cursor:
        cursor.execute(_TABLES_SQL)
        for table, column, kind in cursor.fetchall():
            text = f"encode(\"{column}\", 'escape')" if kind == "bytea" else f'"{column}"::text'
            patterns = [f"%{word.lower()}%" for word in words]
            cursor.execute(f"SELECT count(*) FROM {table} WHERE lower({text}) LIKE ANY (%s)", [patterns])
            if cursor.fetchone()[0]:
                found.append(f"{table}.{column}")
    return found
