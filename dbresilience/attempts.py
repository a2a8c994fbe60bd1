"""One run of a transaction, and what its failure means."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import ceil
from types import TracebackType
from typing import Any, Final

import psycopg
import structlog
from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import IsolationLevel
from psycopg.pq import TransactionStatus

from dbresilience.commits import Outcome, begin, commit_outcome, first_error, is_answer_lost
from dbresilience.error_texts import traceback_text
from dbresilience.errors import (
    CommitUnknown,
    ConnectionLost,
    DeadlineExceeded,
    LockHeld,
    TransactionAborted,
    TransactionEnded,
)
from dbresilience.interruptions import leave_nothing
from dbresilience.observations.outcomes import commit_resolved
from dbresilience.options import LEVELS, Options
from dbresilience.sqlstate import is_connection_loss
from dbresilience.turns import turn_taken

log = structlog.get_logger(__name__)

_IDLE: Final = int(TransactionStatus.IDLE)
_INERROR: Final = int(TransactionStatus.INERROR)
_LOCK: Final = b"SELECT pg_try_advisory_xact_lock(%d)"
_ID: Final = b"SELECT pg_current_xact_id()"
_USUAL: Final = b"BEGIN; " + _ID
# Seconds.
_UNDO_FOR: Final = 2.0


class OutermostRun:
    """A context manager: one run in an outermost transaction, which never ends as success when it did not commit.

    Attributes:
        committed: whether the transaction is known to have committed.
    """

    def __init__(self, options: Options, connection: BaseDatabaseWrapper, *, in_turn: bool = False) -> None:
        self._options = options
        self._connection: Any = connection
        self._atomic = transaction.Atomic(options.using, savepoint=True, durable=False)
        self._transaction_id: int | None = None
        self._session: Any = None
        self._history = ""
        self._turn = ExitStack() if in_turn else None
        self.committed = False

    def __enter__(self) -> None:
        if self._turn is None:
            self._start()
            return
        self._turn.enter_context(turn_taken(self._options.left()))
        try:
            self._start()
        except BaseException:
            self._turn.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._options.savepoints:
            # What waits for the commit runs in here, and may run transactions of its own.
            self._connection.joins_nested_runs = False
        try:
            self._end(error)
        except BaseException:
            leave_nothing(self._connection)
            raise
        finally:
            if self._turn is not None:
                self._turn.close()

    def _start(self) -> None:
        connection = self._connection
        # A setting of the session that need not be changed and changed back, if the backend is ours.
        connection.begins_itself = True
        connection.waits_until = self._options.expires
        # Django never forgets the last one.
        connection.rollback_exc = None
        try:
            try:
                self._atomic.__enter__()
            except Error:
                if not self._let_go_of_the_dead():
                    raise
                self._atomic.__enter__()
        except Error as exc:
            self._raise_over_time(exc)
            raise
        finally:
            connection.begins_itself = False
            connection.waits_until = None
        try:
            # Django's own BEGIN comes with the first statement; ours takes its place, and is no further exchange.
            try:
                self._begin()
            except psycopg.Error:
                with connection.wrap_database_errors:
                    raise
        except BaseException as exc:
            self._undo(exc)
            raise
        if not self._options.savepoints:
            connection.joins_nested_runs = True

    def _let_go_of_the_dead(self) -> bool:
        """Close a session that was lost before this transaction, if whoever heard of it left it where it was."""
        session = self._connection.connection
        if session is None or not session.closed:
            return False
        self._connection.close()
        return True

    def _end(self, error: BaseException | None) -> None:
        connection, session = self._connection, self._session
        if self._was_ended_inside() and (error is None or isinstance(error, Error)):
            # What came after it was committed statement by statement, so running it again would do it twice.
            ended = TransactionEnded(TransactionEnded.__doc__)
            self._undo(ended)
            raise ended from error
        if error is not None:
            self._undo(error)
            return
        if connection.closed_in_transaction or connection.connection is None or session.closed:
            # Django ends such a block without an error and without a commit; the caller must hear of it.
            lost = ConnectionLost(ConnectionLost.__doc__)
            self._undo(lost)
            raise lost
        doomed = self._doom()
        if doomed is not None:
            self._undo(doomed)
            raise doomed
        if connection.needs_rollback:
            # As in any atomic block: an inner one asked for it, or set_rollback() did.
            self._roll_back(None)
            if session.closed:
                raise ConnectionLost(ConnectionLost.__doc__)
            return
        self._commit()

    def _commit(self) -> None:
        connection = self._connection
        outer = sys.exc_info()[1]
        hooks = list(connection.run_on_commit)
        # The first to run when COMMIT was answered: an error after it is one of the others', not of the transaction.
        connection.run_on_commit.insert(0, (set(), self._mark_committed, False))
        try:
            self._atomic.__exit__(None, None, None)
        except Error as exc:
            if self.committed:
                raise
            first = first_error(exc, outer)
            if not is_answer_lost(first):
                raise first from first.__cause__
            # Asking what became of it is not bound by the deadline that may have cut COMMIT short.
            self._end_deadline()
            self._resolve(first)
            self._run(hooks)
        except BaseException:
            if not self.committed:
                # Interrupted: nobody asked what became of it, and the next transaction is not what they wait for.
                connection.run_on_commit = []
            raise
        finally:
            self._end_deadline()

    def _undo(self, error: BaseException) -> None:
        over_time = self._options.left() == 0.0 and not isinstance(error, TransactionEnded | CommitUnknown)
        try:
            self._roll_back(error)
        except Error as exc:
            # Only connecting anew can fail here; what ended the work says more.
            log.warning("reconnecting_failed", error=type(exc).__name__)
        if over_time and isinstance(error, Error):
            raise DeadlineExceeded(DeadlineExceeded.__doc__) from error

    def _roll_back(self, error: BaseException | None) -> None:
        """Undo the work, for which a deadline that has passed leaves a moment: cut short it costs the connection."""
        expires = self._options.expires
        if expires is not None and self._session is self._connection.connection:
            # Not for as long as a connection waits otherwise, since behind a silent peer that is minutes.
            self._session.deadline = max(expires, time.monotonic() + _UNDO_FOR)
        kind, traceback = (None, None) if error is None else (type(error), error.__traceback__)
        try:
            self._atomic.__exit__(kind, error, traceback)
        finally:
            self._end_deadline()

    def _raise_over_time(self, error: Error) -> None:
        if self._options.left() == 0.0:
            raise DeadlineExceeded(DeadlineExceeded.__doc__) from error

    def _was_ended_inside(self) -> bool:
        """Whether the function sent COMMIT or ROLLBACK by itself, behind Django's back."""
        session = self._session
        if session is not self._connection.connection or session.closed:
            return False
        return bool(session.pgconn.transaction_status == _IDLE)

    def _doom(self) -> BaseException | None:
        """Why the transaction cannot commit though the function returned; None when it can.

        To the COMMIT of a transaction in which a statement failed PostgreSQL answers by rolling back, without an error;
        Django, where it saw the error, rolls back as quietly.
        """
        if self._session.pgconn.transaction_status != _INERROR:
            return None
        swallowed: BaseException | None = self._connection.rollback_exc if self._connection.needs_rollback else None
        return swallowed or TransactionAborted(TransactionAborted.__doc__)

    def _mark_committed(self) -> None:
        self.committed = True
        self._end_deadline()
        if self._turn is not None:
            # It holds no lock any more.
            self._turn.close()

    def _end_deadline(self) -> None:
        """The deadline is the work's; what waits for its commit has the connection's own patience."""
        # One that was given back has a deadline of somebody else's, if any.
        if self._options.expires is not None and self._session is self._connection.connection:
            self._session.deadline = None

    def _begin(self) -> None:
        session = self._session = self._connection.connection
        options = self._options
        self._history = getattr(session, "history", "")
        if options.is_usual and session.isolation_level is None:
            (number,) = begin(session, _USUAL)
            self._transaction_id = int(number)
            return
        level = LEVELS[options.isolation] if options.isolation is not None else session.isolation_level
        opening = b"BEGIN"
        if level is not None:
            opening += b" ISOLATION LEVEL " + IsolationLevel(level).name.replace("_", " ").encode()
        statements = [opening + b" READ ONLY"] if options.read_only else [opening, _ID]
        left = options.left()
        if left is not None:
            limit = max(1, ceil(left * 1000))
            statements += [b"SET LOCAL statement_timeout = %d" % limit, b"SET LOCAL lock_timeout = %d" % limit]
            session.deadline = options.expires
        if options.lock is not None:
            statements.append(_LOCK % options.lock)
        found = begin(session, b"; ".join(statements))
        if not options.read_only:
            self._transaction_id = int(found[0])
        if options.lock is not None and found[-1] != b"t":
            raise LockHeld(LockHeld.__doc__)

    def _resolve(self, error: Error) -> None:
        """Find out what became of the transaction whose COMMIT went unanswered.

        Raises:
            ConnectionLost: it did not commit, since the connection was lost.
            DeadlineExceeded: it did not commit by its deadline.
            CommitUnknown: nobody can say.
            django.db.Error: it did not commit for the reason that the error gives.
        """
        if self._options.read_only:
            # There is nothing to find out, since it wrote nothing.
            self._raise_over_time(error)
            raise ConnectionLost(ConnectionLost.__doc__) from error
        found = commit_outcome(self._transaction_id, self._history, using=self._options.using)
        log.warning("commit_answer_lost", outcome=found.value, transaction_id=self._transaction_id)
        commit_resolved(found.value)
        if found is Outcome.UNKNOWN:
            raise CommitUnknown(self._transaction_id) from error
        if found is Outcome.ABORTED:
            self._raise_over_time(error)
            if is_connection_loss(error):
                raise ConnectionLost(ConnectionLost.__doc__) from error
            raise error
        self._mark_committed()

    @staticmethod
    def _run(hooks: list[tuple[Any, Callable[[], object], bool]]) -> None:
        """Run what waits for the commit; Django forgot it when it saw the error."""
        for _, function, robust in hooks:
            try:
                function()
            except Exception as exc:
                if not robust:
                    raise
                log.error("on_commit_failed", traceback=traceback_text(exc))
