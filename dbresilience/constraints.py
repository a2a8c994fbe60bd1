"""Constraint violations as data: what was violated, on which table and columns, without any row's values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

import psycopg
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connections

Kind = Literal["unique", "foreign_key", "not_null", "check", "exclusion", "unknown"]
Code = Literal["duplicate_entry", "invalid_reference", "required_field", "invalid_value", "conflicting_range"]

_BY_SQLSTATE: Final[dict[str, tuple[Kind, Code]]] = {
    "23505": ("unique", "duplicate_entry"),
    "23503": ("foreign_key", "invalid_reference"),
    "23502": ("not_null", "required_field"),
    "23514": ("check", "invalid_value"),
    "23P01": ("exclusion", "conflicting_range"),
}

_MESSAGES: Final[dict[Code, str]] = {
    "duplicate_entry": "Another record already has this value.",
    "invalid_reference": "This refers to a record that does not exist, or that others still refer to.",
    "required_field": "This field is required.",
    "invalid_value": "This value is not allowed.",
    "conflicting_range": "This range overlaps one that exists.",
}

# Serves constraint_violation: the columns of a constraint, or of the unique index of that name. Expressions (as in
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
TABLE_COLUMNS_SQL: Final = """
SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = %(table)s::regclass AND a.attnum > 0
"""

_columns: dict[tuple[str, str, str], tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class ConstraintViolation:
    """What a violated constraint says, fit to be shown.

    Attributes:
        kind: class of the constraint.
        code: stable word for API clients.
        table: name of the table, or the empty string.
        columns: columns that the constraint speaks of; empty when they could not be read.
        constraint: name of the constraint; empty for NOT NULL.
        message: one sentence for a person; holds no value of any row.
    """

    kind: Kind
    code: Code
    table: str
    columns: tuple[str, ...]
    constraint: str
    message: str


def constraint_violation(exc: IntegrityError, *, using: str = DEFAULT_DB_ALIAS) -> ConstraintViolation:
    """Translate an ``IntegrityError`` by its SQLSTATE and the catalogue.

    The error's own text is never used: its detail holds the values of rows.

    Args:
        exc: the error as Django raised it.
        using: alias of the database that raised it, whose catalogue is read once per constraint.
    """
    cause = exc.__cause__
    if not isinstance(cause, psycopg.Error) or cause.sqlstate not in _BY_SQLSTATE:
        return ConstraintViolation("unknown", "invalid_value", "", (), "", _MESSAGES["invalid_value"])
    kind, code = _BY_SQLSTATE[cause.sqlstate]
    diag = cause.diag
    table, constraint = diag.table_name or "", diag.constraint_name or ""
    if diag.column_name:
        columns: tuple[str, ...] = (diag.column_name,)
    else:
        columns = _columns_of(diag.schema_name or "public", table, constraint, using)
    return ConstraintViolation(kind, code, table, columns, constraint, _MESSAGES[code])


def _columns_of(schema: str, table: str, constraint: str, using: str) -> tuple[str, ...]:
    key = (schema, table, constraint)
    if key not in _columns:
        connection = connections[using]
        if connection.needs_rollback or not constraint:
            return ()
        with connection.cursor() as cursor:
            parameters = {"schema": schema, "table": table, "constraint": constraint}
            cursor.execute(COLUMNS_SQL, parameters)
            found = [row[0] for row in cursor.fetchall()]
            cursor.execute(TABLE_COLUMNS_SQL, {"table": f'"{schema}"."{table}"'})
            known = {row[0] for row in cursor.fetchall()}
        words = (word for text in found for word in re.findall(r"\w+", text))
        _columns[key] = tuple(dict.fromkeys(word for word in words if word in known))
    return _columns[key]
