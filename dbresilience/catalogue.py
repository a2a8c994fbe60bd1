"""What PostgreSQL's catalogue says of constraints, tables and how they refer to each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

Query = Callable[[str, Mapping[str, Any]], Sequence[tuple[Any, ...]]]
"""Runs a statement with parameters and returns its rows as tuples, on whichever connection the caller has."""

# Serves constraint_columns: the columns of a constraint, or of the unique index of that name. Expressions (as in
# lower(email)) come as text. The catalogue is small and read once per name.
COLUMNS_SQL: Final = """
SELECT pg_get_indexdef(i.indexrelid, k.n, true)
  FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace
  JOIN pg_index i ON i.indexrelid = c.oid
 CROSS JOIN LATERAL generate_series(1, i.indnkeyatts) AS k(n)
 WHERE s.nspname = %(schema)s AND c.relname = %(constraint)s
UNION ALL
SELECT a.attname::text
  FROM pg_constraint o JOIN pg_class t ON t.oid = o.conrelid JOIN pg_namespace s ON s.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (o.conkey)
 WHERE s.nspname = %(schema)s AND t.relname = %(table)s AND o.conname = %(constraint)s AND o.contype IN ('c', 'f')
"""
# Serves constraint_columns: which words of an expression are columns. No rows when the table is gone.
TABLE_COLUMNS_SQL: Final = """
SELECT a.attname::text
  FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid JOIN pg_namespace s ON s.oid = t.relnamespace
 WHERE s.nspname = %(schema)s AND t.relname = %(table)s AND a.attnum > 0
"""


def constraint_columns(query: Query, *, schema: str, table: str, constraint: str) -> tuple[str, ...]:
    """The columns that a constraint speaks of, in its order; empty when the catalogue does not know it."""
    found = query(COLUMNS_SQL, {"schema": schema, "table": table, "constraint": constraint})
    if not found:
        return ()
    known = {row[0] for row in query(TABLE_COLUMNS_SQL, {"schema": schema, "table": table})}
    words = (word for row in found for word in re.findall(r"\w+", row[0]))
    return tuple(dict.fromkeys(word for word in words if word in known))
