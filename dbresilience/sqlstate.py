"""Classes of PostgreSQL errors, by SQLSTATE and cause; never by the text of a message.

Source: PostgreSQL documentation, appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

from typing import Final, Literal

import psycopg
from psycopg import errors

ConstraintKind = Literal["unique", "foreign_key", "not_null", "check", "exclusion"]

SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
LOCK_NOT_AVAILABLE = "55P03"

CONSTRAINT_KINDS: Final[dict[str, ConstraintKind]] = {
    "23505": "unique",
    "23503": "foreign_key",
    "23502": "not_null",
    "23514": "check",
    "23P01": "exclusion",
}

_CONNECTION_CLASS = "08"
_SERVER_STOPS_US = frozenset({"57P01", "57P02", "57P03", "57P05"})


def sqlstate_of(exc: BaseException) -> str | None:
    """The SQLSTATE of a Django or psycopg error, or None when the server sent none."""
    for error in (exc, exc.__cause__):
        if isinstance(error, psycopg.Error):
            return error.sqlstate
    return None


def is_contention(exc: BaseException) -> bool:
    """Whether the server undid the transaction because of others (deadlock, serialization): run it again whole."""
    return sqlstate_of(exc) in (SERIALIZATION_FAILURE, DEADLOCK_DETECTED)


def is_connection_loss(exc: BaseException) -> bool:
    """Whether the error says that the session is gone or could not be had."""
    state = sqlstate_of(exc)
    if state is not None:
        return state.startswith(_CONNECTION_CLASS) or state in _SERVER_STOPS_US
    cause = exc.__cause__ if not isinstance(exc, psycopg.Error) else exc
    return isinstance(cause, psycopg.OperationalError) and not isinstance(cause, errors.QueryCanceled)
