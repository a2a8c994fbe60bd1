"""Constraint violations as data: what was violated, on which table and columns, without any row's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import psycopg
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connections
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from dbresilience.catalogue import Query, constraint_columns
from dbresilience.monitor.connection import monitor_connection
from dbresilience.observations.errors import observe_error
from dbresilience.sqlstate import CONSTRAINT_KINDS, ConstraintKind

Kind = ConstraintKind | Literal["unknown"]
Code = Literal["duplicate_entry", "invalid_reference", "required_field", "invalid_value", "conflicting_range"]

CATALOGUE_DEADLINE: Final = 2.0
"""Seconds that a look into the catalogue may take on a connection of its own; without it there are no columns."""

_CODES: Final[dict[Kind, Code]] = {
    "unique": "duplicate_entry",
    "foreign_key": "invalid_reference",
    "not_null": "required_field",
    "check": "invalid_value",
    "exclusion": "conflicting_range",
    "unknown": "invalid_value",
}

_MESSAGES: Final[dict[Code, str]] = {
    "duplicate_entry": "Another record already has this value.",
    "invalid_reference": "This refers to a record that does not exist, or that others still refer to.",
    "required_field": "This field is required.",
    "invalid_value": "This value is not allowed.",
    "conflicting_range": "This range overlaps one that exists.",
}

_SUGGESTIONS: Final[dict[Code, str]] = {
    "duplicate_entry": "Use the record that has this {columns} already, or send another {columns}.",
    "invalid_reference": (
        "Create the record that {columns} refers to first; when deleting, remove what still refers to it first."
    ),
    "required_field": "Send a value for {columns}.",
    "invalid_value": "Send another {columns}.",
    "conflicting_range": "Choose {columns} so that it does not overlap, or change the record that it overlaps first.",
}

_USABLE: Final = frozenset({TransactionStatus.IDLE, TransactionStatus.INTRANS})

_columns: dict[tuple[str, str, str, str], tuple[str, ...]] = {}


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
        suggestion: what the caller can do about it; holds no value of any row.
    """

    kind: Kind
    code: Code
    table: str
    columns: tuple[str, ...]
    constraint: str
    message: str
    suggestion: str


def constraint_violation(exc: IntegrityError, *, using: str = DEFAULT_DB_ALIAS) -> ConstraintViolation:
    """Translate an ``IntegrityError`` by its SQLSTATE and the catalogue.

    The error's own text is never used: its detail holds the values of rows. Deferred constraints, which speak up at
    COMMIT, come out the same. The violation is counted, unless it was already.

    Args:
        exc: the error as Django raised it.
        using: alias of the database that raised it, whose catalogue is read once per constraint.
    """
    observe_error(exc)
    cause = exc.__cause__
    if not isinstance(cause, psycopg.Error) or cause.sqlstate not in CONSTRAINT_KINDS:
        return _violation("unknown", "", (), "")
    diag = cause.diag
    table, constraint = diag.table_name or "", diag.constraint_name or ""
    if diag.column_name:
        columns: tuple[str, ...] = (diag.column_name,)
    else:
        columns = _columns_of(diag.schema_name or "public", table, constraint, using)
    return _violation(CONSTRAINT_KINDS[cause.sqlstate], table, columns, constraint)


def _violation(kind: Kind, table: str, columns: tuple[str, ...], constraint: str) -> ConstraintViolation:
    code = _CODES[kind]
    names = " and ".join(columns) or "value"
    suggestion = _SUGGESTIONS[code].format(columns=names)
    return ConstraintViolation(kind, code, table, columns, constraint, _MESSAGES[code], suggestion)


def _columns_of(schema: str, table: str, constraint: str, using: str) -> tuple[str, ...]:
    key = (using, schema, table, constraint)
    if key not in _columns and constraint:
        try:
            found = _read_columns(schema, table, constraint, using)
        except psycopg.Error:
            # The database went away meanwhile; the violation is told without its columns.
            found = ()
        if not found:
            return ()
        _columns[key] = found
    return _columns.get(key, ())


def _read_columns(schema: str, table: str, constraint: str, using: str) -> tuple[str, ...]:
    session = connections[using].connection
    if session is not None and not session.closed and session.pgconn.transaction_status in _USABLE:
        return constraint_columns(_query_on(session), schema=schema, table=table, constraint=constraint)
    # The transaction that failed is still open, and takes no more questions.
    with monitor_connection(using=using, deadline=CATALOGUE_DEADLINE) as own:
        return constraint_columns(_query_on(own), schema=schema, table=table, constraint=constraint)


def _query_on(session: psycopg.Connection[Any]) -> Query:
    def query(sql: str, values: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        with session.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(sql, values).fetchall()

    return query
