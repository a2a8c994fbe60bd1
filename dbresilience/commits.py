"""Whether a transaction committed, when the answer to its COMMIT was lost."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from django.db import Error, connections
from psycopg import errors, generators
from psycopg.pq import ExecStatus

from dbresilience.history import HISTORY_SQL
from dbresilience.sqlstate import is_connection_loss, sqlstate_of

_ASK_FOR: Final = 10.0
_ASK_EVERY: Final = 0.1
_FATAL_ERROR: Final = int(ExecStatus.FATAL_ERROR)
_TUPLES_OK: Final = int(ExecStatus.TUPLES_OK)

# Serves commit_outcome. NULL for a transaction too old to be known; an error for one of another history.
STATUS_SQL: Final = "SELECT pg_xact_status(%s::text::xid8)"


class Outcome(enum.Enum):
    """What became of a transaction."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


def begin(session: psycopg.Connection[Any], command: bytes) -> list[bytes]:
    """Begin a transaction with statements sent as one message, and return the value that each SELECT gives.

    The id is had in the message that begins the transaction, so it costs no exchange of its own; when the answer to
    COMMIT is lost it is too late to ask for it.

    Raises:
        psycopg.Error: what the server said.
    """
    trail = getattr(session, "trail", None)
    if trail:
        # Of the transaction before.
        trail.clear()
    with session.lock:
        session.pgconn.send_query(command)
        results = session.wait(generators.execute(session.pgconn))
    # Plain numbers: reading a member of an enumeration takes as long as all else that is done with a result here.
    if results[-1].status == _FATAL_ERROR:
        # The server skips the rest of the message after an error.
        raise errors.error_from_result(results[-1], encoding=session.info.encoding)
    return [result.get_value(0, 0) or b"" for result in results if result.status == _TUPLES_OK]


def first_error(error: Error, outer: BaseException | None) -> Error:
    """The error of COMMIT itself, which Django hides behind that of reconnecting when that fails too.

    Args:
        error: as Django raised it.
        outer: the error that was being handled before COMMIT was sent, which is none of its own.
    """
    found, node = error, error.__context__
    while node is not None and node is not outer:
        if isinstance(node, Error):
            found = node
        node = node.__context__
    return found


def is_answer_lost(exc: BaseException) -> bool:
    """Whether an error of COMMIT leaves open what became of it: the server said nothing, or that it stops."""
    state = sqlstate_of(exc)
    # 40003 is the server's own "statement completion unknown"; a cancelled COMMIT may have been done.
    return state in {"40003", "57014"} or is_connection_loss(exc)


def commit_outcome(transaction_id: int | None, history: str, *, using: str) -> Outcome:
    """Ask the server what became of a transaction, on a new connection, for ten seconds at most.

    Args:
        transaction_id: as ``pg_current_xact_id()`` gave it; None is unknown.
        history: of the server that gave it; empty when not known. After a fail-over the same number may be another
            transaction's, so a server with another history is not believed.
        using: alias of the database.
    """
    until = time.monotonic() + _ASK_FOR
    wrapper = connections[using]
    while transaction_id is not None and time.monotonic() < until:
        try:
            with _cursor_until(until, wrapper) as cursor:
                if history:
                    cursor.execute(HISTORY_SQL)
                    if cursor.fetchone() != (history,):
                        return Outcome.UNKNOWN
                cursor.execute(STATUS_SQL, [str(transaction_id)])
                (status,) = cursor.fetchone()
        except Error as exc:
            wrapper.close()
            if not is_connection_loss(exc):
                return Outcome.UNKNOWN
        else:
            if status != "in progress":
                return Outcome(status) if status else Outcome.UNKNOWN
        # The old session may not have noticed yet that its client is gone, or may be about to commit.
        time.sleep(_ASK_EVERY)
    return Outcome.UNKNOWN


@contextmanager
def _cursor_until(until: float, wrapper: Any) -> Iterator[Any]:
    """A cursor that neither waits for its connection nor for an answer beyond a monotonic instant."""
    wrapper.waits_until = until
    try:
        with wrapper.cursor() as cursor:
            session = wrapper.connection
            session.deadline = until
            try:
                yield cursor
            finally:
                session.deadline = None
    finally:
        wrapper.waits_until = None
