"""Emptying the database after a test that committed: of its tables only those that the test filled or changed.

Django truncates every table and lets each app write its first rows anew, which takes a quarter of a second here. Most
tests touch five tables of eighty, and leave a few rows there: to delete those is ten times as fast as to truncate,
which makes files anew for each table, its indexes and its TOAST table.
"""

from __future__ import annotations

from typing import Final

from django.db import connection
from django.test import TransactionTestCase

# Those that hold a page at least, with the bytes that they take.
TABLES_SQL: Final = """
SELECT name, bytes FROM (
    SELECT format('%I', relname) AS name,
           CASE relkind WHEN 'p' THEN (SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree(oid) WHERE isleaf)
                        ELSE pg_relation_size(oid) END AS bytes
      FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
       AND relname <> 'django_migrations'
) t WHERE bytes > 0 ORDER BY 1
"""
TRUNCATED_FROM: Final = 128 * 1024
"""Bytes from which on a table is truncated, so that no test reads the dead rows of many others."""
DIGEST_SQL: Final = "(SELECT COALESCE(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '') FROM {} t)"

_kept: dict[str, str] = {}


def rows_keep() -> None:
    """Remember the rows that a new database has: those that migrations and apps write, not those of tests."""
    _kept.clear()
    with connection.cursor() as cursor:
        cursor.execute(TABLES_SQL)
        tables = [table for table, _ in cursor.fetchall()]
        cursor.execute("DROP SCHEMA IF EXISTS kept CASCADE; CREATE SCHEMA kept")
        for table in _filled(tables):
            cursor.execute(f"CREATE TABLE kept.{table} AS TABLE {table}")
            cursor.execute("SELECT " + DIGEST_SQL.format(table))
            _kept[table] = cursor.fetchone()[0]


def rows_restore() -> None:
    """Leave the tables as they were when ``rows_keep`` looked."""
    with connection.cursor() as cursor:
        cursor.execute(TABLES_SQL)
        sizes = dict(cursor.fetchall())
        tables = [table for table in sizes if table not in _kept]
        # Those too that hold nothing but what was rolled back.
        if large := [table for table in tables if sizes[table] >= TRUNCATED_FROM]:
            cursor.execute(f"TRUNCATE {', '.join(large)} CASCADE")
        if small := _filled([table for table in tables if table not in large]):
            # Whoever still writes is waited for, as TRUNCATE does.
            deletes = "".join(f"DELETE FROM {table};" for table in small)
            lock = f"LOCK TABLE {', '.join(small)} IN SHARE ROW EXCLUSIVE MODE;"
            cursor.execute(f"BEGIN; SET LOCAL session_replication_role = replica; {lock} {deletes} COMMIT")
        digests = ", ".join(DIGEST_SQL.format(table) for table in _kept)
        cursor.execute(f"SELECT {digests}")
        found = dict(zip(_kept, cursor.fetchone(), strict=True))
        if changed := [table for table in _kept if found[table] != _kept[table]]:
            # Without triggers: what may only be added to is put back as well, and in any order.
            again = "".join(f"DELETE FROM {name}; INSERT INTO {name} TABLE kept.{name};" for name in changed)
            cursor.execute(f"BEGIN; SET LOCAL session_replication_role = replica; {again} COMMIT")


def _filled(tables: list[str]) -> list[str]:
    if not tables:
        return []
    with connection.cursor() as cursor:
        asked = ", ".join(f"EXISTS (SELECT FROM {table})" for table in tables)
        cursor.execute(f"SELECT {asked}")
        return [table for table, is_filled in zip(tables, cursor.fetchone(), strict=True) if is_filled]


def install() -> None:
    """Let tests that commit end with it, in place of Django's flush."""
    TransactionTestCase._fixture_teardown = lambda self: rows_restore()  # type: ignore[method-assign]
