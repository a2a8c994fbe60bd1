"""The transaction that runs again when PostgreSQL asks for it: as a verb, and as a loop of attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any, Final, TypeVar

from django.db import DEFAULT_DB_ALIAS, Error
from psycopg import errors

from dbresilience.attempts import OutermostRun
from dbresilience.errors import ConnectionLost
from dbresilience.options import Classes, IsolationName
from dbresilience.retries import Attempts

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

DEADLOCK: Final[Classes] = (errors.DeadlockDetected,)
"""For ``retry_on``: the transaction was chosen as the victim of a deadlock."""

CONTENTION: Final[Classes] = (errors.DeadlockDetected, errors.SerializationFailure)
"""For ``retry_on``: the server undid the transaction because of others."""

TRANSIENT: Final[Classes] = (*CONTENTION, ConnectionLost)
"""For ``retry_on``, and what it is by default: contention, and a connection lost before the commit."""

_UNBEGUN: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def run_in_transaction(
    function: Callable[[], T],
    *,
    max_retries: int | None = None,
    retry_on: type[Exception] | Classes = TRANSIENT,
    isolation: IsolationName | None = None,
    deadline: float | None = None,
    read_only: bool = False,
    lock: int | None = None,
    savepoints: bool = True,
    repeatable: bool = True,
    using: str = DEFAULT_DB_ALIAS,
) -> T:
    """Run ``function`` in a transaction and return what it returns.

    Outermost, the whole function runs again after a deadlock or a serialization failure, and when the connection was
    lost before it committed; so it must do nothing but database work (or say that it does more). Waits have full jitter
    (after "Exponential Backoff And Jitter", AWS Architecture Blog); the whole-callback retry is CockroachDB's
    ``run_transaction``. Inside an outer transaction it becomes a savepoint and nothing is retried: after 40001 or 40P01
    only the outermost transaction can be repeated.

    When the answer to COMMIT is lost, the server is asked what became of the transaction: committed ends as success,
    with its ``on_commit`` functions; aborted counts as a connection lost; unknown is raised and never repeated. An
    error of an ``on_commit`` function is raised and repeats nothing either.

    The transaction has its id from the beginning, so ``SET TRANSACTION`` inside comes too late: give ``isolation``.

    Args:
        function: takes nothing; is safe to repeat as long as it did not commit, unless marked by ``unrepeatable``.
        max_retries: runs after the first one; None takes ``DB_DEADLOCK_RETRY_COUNT`` for contention and
            ``DB_MAX_RETRIES`` for the rest.
        retry_on: classes of errors that are repeated: of this app, of Django, or psycopg's, which name the SQLSTATE.
        isolation: level of the transaction; None takes the connection's.
        deadline: seconds for all runs together, and for the waits for a connection. Becomes the lock and statement
            time-outs of each run, and is kept by the client when the server does not answer; inside another
            transaction by the client alone. Undoing may take two seconds more, and finding out what became of a COMMIT
            that went unanswered ten.
        read_only: whether the transaction may write nothing; on a standby it must be.
        lock: number of an advisory lock (64 bits, signed) that the transaction holds from its beginning to its end. It
            is asked for in the message that begins the transaction, and not waited for.
        savepoints: False makes runs inside part of the transaction itself, which spares two exchanges for each. An
            error that leaves one of them then undoes the whole, even if it is caught.
        repeatable: False runs the function once, whatever happens; a transaction around it is not run again either.
        using: alias of the database.

    Raises:
        ConnectionLost: the connection died inside, even if the function swallowed the error that said so.
        CommitUnknown: nobody can say whether the transaction committed.
        DeadlineExceeded: the deadline passed; nothing was committed.
        LockHeld: another transaction has the lock; the function was not run.
        NestedTransaction: a level, a lock or ``read_only`` was asked for inside another transaction.
        TransactionAborted: a statement failed, and the function caught the error outside of any savepoint; of an error
            of the ORM that error itself. Nothing was committed.
        TransactionEnded: the function sent COMMIT or ROLLBACK itself. It is not repeated.
        ValueError: an argument makes no sense; names it.
        TypeError: the function is asynchronous or a generator.
        django.db.Error: whatever the last run raised.
    """
    repeatable = repeatable and not _is_unrepeatable(function)
    attempts = Attempts(
        max_retries=max_retries if repeatable else 0,
        retry_on=retry_on,
        isolation=isolation,
        deadline=deadline,
        read_only=read_only,
        using=using,
        lock=lock,
        savepoints=savepoints,
    )
    if attempts.is_nested:
        with attempts.nested(repeatable=repeatable):
            return _done(function())
    while True:
        run = attempts.outermost()
        try:
            with run:
                result = _done(function())
        except Error as exc:
            attempts.wait_or_raise(exc, run)
        else:
            attempts.succeeded()
            return result


def deadlock_retries(
    *,
    max_retries: int | None = None,
    retry_on: type[Exception] | Classes = CONTENTION,
    isolation: IsolationName | None = None,
    deadline: float | None = None,
    using: str = DEFAULT_DB_ALIAS,
) -> Iterator[Attempt]:
    """The same as a loop, for code that is no function: ``for attempt in deadlock_retries(): with attempt: …``.

    A context manager cannot run its block again, so the loop does (as in stamina's ``retry_context``). Each attempt is
    a context manager that runs its block in a transaction; one that fails for a reason that is retried ends quietly
    and the loop goes on; one that succeeds ends the loop. Inside an outer transaction there is one attempt, a
    savepoint. Names that an attempt bound keep what it bound them to.

    Args:
        max_retries: as in ``run_in_transaction``.
        retry_on: the same; by default contention alone.
        isolation: the same.
        deadline: the same.
        using: the same.

    Raises:
        django.db.Error: from the attempt, as in ``run_in_transaction``.
    """
    attempts = Attempts(
        max_retries=max_retries,
        retry_on=retry_on,
        isolation=isolation,
        deadline=deadline,
        read_only=False,
        using=using,
    )
    while not attempts.done:
        attempt = Attempt(attempts)
        yield attempt
        if not attempt.entered:
            raise RuntimeError("Each attempt must be entered: with attempt: …")


def unrepeatable(function: F) -> F:
    """Mark a function that must not run twice, because it does more than database work.

    Run inside another transaction, it keeps that one from being run again.
    """
    function.is_unrepeatable = True  # type: ignore[attr-defined]
    return function


class Attempt:
    """One run of the block under ``with``.

    Attributes:
        number: 1 for the first one.
    """

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._run: OutermostRun | None = None
        self._context: Any = None
        self.number = attempts.retries + 1
        self.entered = False

    def __enter__(self) -> Attempt:
        self.entered = True
        if self._attempts.is_nested:
            self._context = self._attempts.nested()
        else:
            self._context = self._run = self._attempts.outermost()
        try:
            self._context.__enter__()
        except Error:
            # A block whose beginning failed cannot be skipped, only left.
            self._attempts.done = True
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        attempts, run = self._attempts, self._run
        if run is None:
            attempts.done = True
            self._context.__exit__(kind, error, traceback)
            return False
        try:
            run.__exit__(kind, error, traceback)
            if error is not None:
                raise error
        except Error as exc:
            attempts.done = True
            attempts.wait_or_raise(exc, run)
            attempts.done = False
        except BaseException:
            attempts.done = True
            raise
        else:
            attempts.done = True
            attempts.succeeded()
        return True


def _done(result: T) -> T:
    if isinstance(result, _UNBEGUN):
        if not isinstance(result, AsyncGeneratorType):
            result.close()
        raise TypeError(
            "The function is asynchronous or a generator: its work would only begin when the transaction is over."
        )
    return result


def _is_unrepeatable(function: Callable[[], object]) -> bool:
    # A method and a partial show what they wrap.
    inner = getattr(function, "func", function)
    return bool(getattr(inner, "is_unrepeatable", False))
