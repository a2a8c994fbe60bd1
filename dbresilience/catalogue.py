"""What PostgreSQL's catalogue says of constraints, tables and how they refer to each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_PLAIN: Final = re.compile(r"[a-z_]\w*")

Query = Callable[[str, Mapping[str, Any]], Sequence[tuple[Any, ...]]]
"""Runs a statement with parameters and returns its rows as tuples, on whichever connection the caller has."""

# Serves constraint_columns: the columns of a constraint, or of the unique index of that name. Expressions (as in
# lower(email)) come as text. Read once per name; few joins, since planning takes longer than the look itself.
COLUMNS_SQL: Final = """
SELECT pg_get_indexdef(i.indexrelid, k.n, true)
  FROM pg_index i CROSS JOIN LATERAL generate_series(1, i.indnkeyatts) AS k(n)
 WHERE i.indexrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(constraint)s::text))
UNION ALL
SELECT a.attname::text
  FROM pg_constraint o JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = ANY (o.conkey)
 WHERE o.conrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text)) AND o.conname = %(constraint)s
   AND o.contype IN ('c', 'f')
"""
# Serves constraint_columns: which words of an expression are columns. No rows when the table is gone.
TABLE_COLUMNS_SQL: Final = """
SELECT attname::text FROM pg_attribute
 WHERE attrelid = to_regclass(format('%%I.%%I', %(schema)s::text, %(table)s::text)) AND attnum > 0
"""


def constraint_columns(query: Query, *, schema: str, table: str, constraint: str) -> tuple[str, ...]:
    """The columns that a constraint speaks of, in its order; empty when the catalogue does not know it."""
    found = query(COLUMNS_SQL, {"schema": schema, "table": table, "constraint": constraint})
    if not found:
        return ()
    if all(_PLAIN.fullmatch(row[0]) for row in found):
        return tuple(dict.fromkeys(row[0] for row in found))
    known = {row[0] for row in query(TABLE_COLUMNS_SQL, {"schema": schema, "table": table})}
    words = (word for row in found for word in re.findall(r"\w+", row[0]))
    return tuple(dict.fromkeys(word for word in words if word in known))
