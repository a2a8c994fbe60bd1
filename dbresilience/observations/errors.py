"""Counting the errors that PostgreSQL or the way to it gave: by SQLSTATE, by constraint, deadlocks one by one."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from typing import Final

import psycopg
import structlog
from django.utils import timezone
from psycopg_pool import PoolTimeout, TooManyRequests

from dbresilience.error_texts import traceback_text
from dbresilience.errors import AnswerTimeout
from dbresilience.observations.names import TallyName
from dbresilience.observations.pending import DeadlockSeen, pending
from dbresilience.observations.writer import wake
from dbresilience.sqlstate import CONSTRAINT_KINDS, DEADLOCK_DETECTED

POOL_EXHAUSTED: Final = "pool_exhausted"
CONNECTION: Final = "connection"
ANSWER_TIMEOUT: Final = "answer_timeout"
"""Keys of errors to which the server gave no SQLSTATE."""

TIMEOUT_KEYS: Final = ("57014", "55P03", "25P03", "25P04", POOL_EXHAUSTED, ANSWER_TIMEOUT)
"""Statement and lock time-outs (57014 is also what cancels a statement by hand), idle ones, and waits for the pool."""

_MARK: Final = "_zenskar_observed"
_LIBRARIES: Final = frozenset({"django", "psycopg", "psycopg_pool", "dbresilience", "contextlib"})

log = structlog.get_logger(__name__)


def observe_error(exc: BaseException, statements: Sequence[object] = ()) -> None:
    """Count an error of the database, once however often it is reported. Never raises and does no input or output.

    Args:
        exc: a Django or psycopg error; anything else is ignored.
        statements: what its transaction ran, the failed statement last.
    """
    error = exc if isinstance(exc, psycopg.Error) else exc.__cause__
    if not isinstance(error, psycopg.Error) or hasattr(error, _MARK):
        return
    try:
        setattr(error, _MARK, True)
        pending.count(TallyName.ERROR, key_of(error))
        if kind := CONSTRAINT_KINDS.get(error.sqlstate or ""):
            _observe_violation(kind, error)
        if error.sqlstate == DEADLOCK_DETECTED:
            _observe_deadlock(error, statements)
    except Exception as failure:  # noqa: BLE001 - what is observed must not fail by it
        # In the chain of its causes stands the error that was to be observed, with the values of a row.
        log.error("observation_failed", traceback=traceback_text(failure))


def key_of(error: psycopg.Error) -> str:
    """The SQLSTATE, or a word where the server sent none."""
    if error.sqlstate:
        return error.sqlstate
    if isinstance(error, PoolTimeout | TooManyRequests):
        return POOL_EXHAUSTED
    if isinstance(error, AnswerTimeout):
        return ANSWER_TIMEOUT
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return CONNECTION
    return type(error).__name__


def _observe_violation(kind: str, error: psycopg.Error) -> None:
    diag = error.diag
    pending.count_violation(
        kind=kind,
        schema=diag.schema_name or "",
        table=diag.table_name or "",
        constraint=diag.constraint_name or "",
        column=diag.column_name or "",
    )


def _observe_deadlock(error: psycopg.Error, statements: Sequence[object]) -> None:
    pending.add_deadlock(
        DeadlockSeen(
            at=timezone.now(),
            monotonic=time.monotonic(),
            detail=error.diag.message_detail or "",
            context=error.diag.context or "",
            statements=tuple(str(statement) for statement in statements),
            code=_calling_code(),
        )
    )
    # The other side goes on at once; who wants to see what it was doing must be quick.
    wake()


def _calling_code() -> str:
    """The innermost line that is neither of a library nor ours: where the statement was run."""
    for frame, line in traceback.walk_stack(sys._getframe(2)):
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in _LIBRARIES:
            return f"{module}.{frame.f_code.co_qualname}:{line}"[:300]
    return ""
