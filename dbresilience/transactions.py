"""One verb that runs a function in a transaction, and again when PostgreSQL asks for it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog
from django.db import DEFAULT_DB_ALIAS, Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from dbresilience.conf import retry_settings
from dbresilience.errors import ConnectionLost
from dbresilience.sqlstate import is_connection_loss, is_contention, sqlstate_of

T = TypeVar("T")

log = structlog.get_logger(__name__)


def run_in_transaction(
    function: Callable[[], T], *, max_retries: int | None = None, using: str = DEFAULT_DB_ALIAS
) -> T:
    """Run ``function`` in a transaction and return what it returns.

    Outermost, the whole function runs again after a deadlock or a serialization failure, and when the connection was
    lost before COMMIT was sent; so it must do nothing but database work. Waits have full jitter (after "Exponential
    Backoff And Jitter", AWS Architecture Blog). Inside an outer transaction it becomes a savepoint and nothing is
    retried: after 40001 or 40P01 only the outermost transaction can be repeated.

    An error of COMMIT itself is never retried, unless the server said that it rolled back: the commit may have
    happened although its answer was lost.

    Args:
        function: takes nothing; is safe to repeat as long as it did not commit.
        max_retries: runs after the first one; None takes ``DB_DEADLOCK_RETRY_COUNT`` for deadlocks and serialization
            failures and ``DB_MAX_RETRIES`` for lost connections.
        using: alias of the database.

    Raises:
        ConnectionLost: the connection died inside, even if the function swallowed the error that said so.
        django.db.Error: whatever the last run raised.
    """
    connection = transaction.get_connection(using)
    if connection.in_atomic_block:
        with transaction.atomic(using=using):
            return function()

    config = retry_settings()
    attempt = 0
    while True:
        run = _Run(function, connection, using)
        try:
            return run()
        except Error as exc:
            budget = _budget(exc, run, config.deadlock_retries, config.max_retries)
            if attempt >= (budget if max_retries is None else min(budget, max_retries)):
                raise
            attempt += 1
            log.info("transaction_retried", attempt=attempt, sqlstate=sqlstate_of(exc), error=type(exc).__name__)
        time.sleep(random.uniform(0, min(config.max_delay, config.base_delay * 2 ** (attempt - 1))))  # noqa: S311


class _Run(Generic[T]):
    """One run of the function in its transaction, which remembers whether COMMIT was reached."""

    def __init__(self, function: Callable[[], T], connection: BaseDatabaseWrapper, using: str) -> None:
        self._function = function
        self._connection = connection
        self._using = using
        self.reached_commit = False

    def __call__(self) -> T:
        with transaction.atomic(using=self._using):
            result = self._function()
            session = self._connection.connection
            if self._connection.closed_in_transaction or session is None or session.closed:
                # Django ends such a block without an error and without a commit; the caller must hear of it.
                raise ConnectionLost(ConnectionLost.__doc__)
            self.reached_commit = True
        return result


def _budget(exc: Error, run: _Run[T], contention: int, connection_loss: int) -> int:
    if is_contention(exc):
        return contention
    if run.reached_commit:
        return 0
    if isinstance(exc, ConnectionLost) or is_connection_loss(exc):
        return connection_loss
    return 0
