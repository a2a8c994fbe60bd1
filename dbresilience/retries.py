"""How often a transaction runs, and what it runs again after."""

from __future__ import annotations

import random
import time
from contextlib import AbstractContextManager
from typing import Any

import structlog
from django.db import Error, transaction
from psycopg_pool import PoolTimeout, TooManyRequests

from dbresilience.attempts import OutermostRun
from dbresilience.conf import RetrySettings, retry_settings
from dbresilience.errors import CommitUnknown, ConnectionLost, DeadlineExceeded, NestedTransaction, TransactionEnded
from dbresilience.nesting import nested_run
from dbresilience.observations.errors import observe_error
from dbresilience.observations.outcomes import retry_given_up, retry_recovered
from dbresilience.observations.statements import trail_of
from dbresilience.options import Classes, IsolationName, Options, arguments_check, expires_at
from dbresilience.sqlstate import DEADLOCK_DETECTED, is_connection_loss, is_contention, sqlstate_of

log = structlog.get_logger(__name__)


class Attempts:
    """How often a transaction ran and may run."""

    def __init__(
        self,
        *,
        max_retries: int | None,
        retry_on: type[Exception] | Classes,
        isolation: IsolationName | None,
        deadline: float | None,
        read_only: bool,
        using: str,
        lock: int | None = None,
        savepoints: bool = True,
    ) -> None:
        connection: Any = transaction.get_connection(using)
        self._connection = connection
        # Where statements do not commit by themselves, what began before is not ours to repeat or to commit.
        commits = connection.autocommit if connection.connection is not None else connection.settings_dict["AUTOCOMMIT"]
        self.is_nested = connection.in_atomic_block or not commits
        if self.is_nested and (isolation is not None or read_only or lock is not None):
            raise NestedTransaction(NestedTransaction.__doc__)
        arguments_check(isolation=isolation, lock=lock, max_retries=max_retries, retry_on=retry_on)
        self._options = Options(using, isolation, read_only, expires_at(deadline), lock, savepoints)
        self._max_retries = max_retries
        self._retry_on = retry_on
        self._sqlstate: str | None = None
        self._deadlocks = 0
        self.retries = 0
        self.done = False

    def nested(self, *, repeatable: bool = True) -> AbstractContextManager[None]:
        if not repeatable:
            self._connection.ran_unrepeatable = True
        return nested_run(self._connection, self._options)

    def outermost(self) -> OutermostRun:
        self._connection.ran_unrepeatable = False
        return OutermostRun(self._options, self._connection, in_turn=self._deadlocks > 0)

    def succeeded(self) -> None:
        if self.retries:
            retry_recovered(self._sqlstate)

    def wait_or_raise(self, exc: Error, run: OutermostRun) -> None:
        """Wait before the next run, or raise the error when there is none."""
        # Errors of COMMIT pass no cursor, where the others are counted.
        observe_error(exc, trail_of(self._connection))
        if run.committed or self._connection.ran_unrepeatable or not self._is_retried(exc):
            raise exc
        config = retry_settings()
        self._sqlstate = sqlstate_of(exc)
        if self.retries >= self._budget(exc, config):
            retry_given_up(self._sqlstate)
            raise exc
        pause = random.uniform(0, min(config.max_delay, config.base_delay * 2**self.retries))  # noqa: S311
        left = self._options.left()
        if left is not None and pause >= left:
            retry_given_up(self._sqlstate)
            raise DeadlineExceeded(DeadlineExceeded.__doc__) from exc
        self.retries += 1
        self._deadlocks += self._sqlstate == DEADLOCK_DETECTED
        log.info("transaction_retried", attempt=self.retries, sqlstate=self._sqlstate, error=type(exc).__name__)
        time.sleep(pause)

    def _is_retried(self, exc: Error) -> bool:
        if isinstance(exc, CommitUnknown | DeadlineExceeded | TransactionEnded):
            return False
        if isinstance(exc, self._retry_on) or isinstance(exc.__cause__, self._retry_on):
            return True
        if isinstance(exc.__cause__, PoolTimeout | TooManyRequests):
            # Who waited for as long as anybody shall wait does not begin to wait again.
            return False
        return _names(self._retry_on, ConnectionLost) and is_connection_loss(exc)

    def _budget(self, exc: Error, config: RetrySettings) -> int:
        if self._max_retries is not None:
            return self._max_retries
        return config.deadlock_retries if is_contention(exc) else config.max_retries


def _names(classes: type[Exception] | Classes, wanted: type[Exception]) -> bool:
    return wanted in (classes if isinstance(classes, tuple) else (classes,))
