"""Migrations that ask for their locks briefly and often, so that nobody queues up behind them for long.

A statement that waits for a table's lock makes every later reader of that table wait behind it. So each attempt gives
up after a time-out that starts short and grows, and between attempts everybody else goes on. After GitLab's
``with_lock_retries`` (docs/development/migration_style_guide.md).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import psycopg
import structlog
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.migration import Migration
from django.db.migrations.state import ProjectState

from dbresilience.conf import lock_settings
from dbresilience.errors import LocksNotGranted
from dbresilience.monitor.connection import monitor_connection
from dbresilience.sqlstate import DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, sqlstate_of

T = TypeVar("T")

GROWTH: Final = 1.3
"""From 0.1 s to 5 s in 15 attempts."""

# Serves with_lock_patience. LOCAL: it ends with the transaction, whichever way that ends.
TIMEOUT_SQL: Final = "SET LOCAL lock_timeout = %s"
# Serves _holders: transactions that held something while the locks were asked for, oldest first.
HOLDERS_SQL: Final = """
SELECT pid, coalesce(nullif(application_name, ''), 'unnamed') AS application, state,
       extract(epoch FROM clock_timestamp() - xact_start)::int AS seconds
  FROM pg_stat_activity
 WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> ALL (%(own)s) ORDER BY xact_start LIMIT 3
"""

log = structlog.get_logger(__name__)


def with_lock_patience(
    function: Callable[[], T], *, using: str = DEFAULT_DB_ALIAS, sleep: Callable[[float], None] = time.sleep
) -> T:
    """Run ``function`` in a transaction that gives up on a lock after a while, and again with more patience.

    Args:
        function: database work alone; it runs again whole.
        using: alias of the database.
        sleep: waits for seconds.

    Raises:
        LocksNotGranted: no attempt got its locks; names the oldest transactions.
    """
    config = lock_settings()
    patience = config.first
    for attempt in range(1, config.attempts + 1):
        try:
            with transaction.atomic(using=using):
                if patience:
                    with connections[using].cursor() as cursor:
                        cursor.execute(TIMEOUT_SQL, [f"{math.ceil(patience * 1000)}ms"])
                return function()
        except OperationalError as exc:
            if sqlstate_of(exc) not in (LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED):
                raise
            if attempt == config.attempts:
                raise LocksNotGranted(f"{LocksNotGranted.__doc__} {_holders(using)}".strip()) from exc
            # A warning, since commands log no less: whoever watches a migration stand still is told why.
            log.warning("lock_not_granted", attempt=attempt, waited=round(patience, 3))
        # Others get at least as long as they were kept waiting; the chance keeps two migrations from marching in step.
        sleep(random.uniform(1, 2) * patience)  # noqa: S311
        patience = min(config.longest, patience * GROWTH)
    raise AssertionError("attempts are at least one")


class PatientExecutor(MigrationExecutor):
    """Applies each migration that is one transaction with lock patience.

    One that is not atomic (an index built concurrently) cannot be begun again, so it waits as it always did.
    """

    def apply_migration(
        self, state: ProjectState, migration: Migration, fake: bool = False, fake_initial: bool = False
    ) -> ProjectState:
        if fake or not self._is_repeatable(migration):
            return super().apply_migration(state, migration, fake, fake_initial)
        apply = super().apply_migration
        # Applying changes the state, and a second attempt must begin with the first one's.
        return self._patiently(lambda: apply(state.clone(), migration, fake, fake_initial))

    def unapply_migration(self, state: ProjectState, migration: Migration, fake: bool = False) -> ProjectState:
        if fake or not self._is_repeatable(migration):
            return super().unapply_migration(state, migration, fake)
        unapply = super().unapply_migration
        return self._patiently(lambda: unapply(state.clone(), migration, fake))

    def _is_repeatable(self, migration: Migration) -> bool:
        return migration.atomic and not self.connection.in_atomic_block and lock_settings().first > 0

    def _patiently(self, function: Callable[[], ProjectState]) -> ProjectState:
        callback = self.progress_callback
        started: list[str] = []

        def told_once(action: str, *arguments: Any) -> None:
            # A line of output is begun by "start" and ended by "success".
            if callback is not None and action not in started:
                started.append(action)
                callback(action, *arguments)

        self.progress_callback = told_once
        try:
            return with_lock_patience(function, using=self.connection.alias)
        finally:
            self.progress_callback = callback


def _holders(using: str) -> str:
    session = connections[using].connection
    own = [session.info.backend_pid] if session is not None and not session.closed else []
    try:
        with monitor_connection(using=using) as connection:
            own.append(connection.info.backend_pid)
            rows = connection.execute(HOLDERS_SQL, {"own": own}).fetchall()
    except psycopg.Error:
        return ""
    if not rows:
        return ""
    named = (f"process {row['pid']} ({row['application']}, {row['state']}) for {row['seconds']} s" for row in rows)
    return f"Open transactions: {', '.join(named)}."
