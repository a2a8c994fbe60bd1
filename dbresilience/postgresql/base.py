"""The database backend: Django's for PostgreSQL, over a pool that outlives failures, forks and Celery's tasks.

``ENGINE = "dbresilience.postgresql"``. The pool is on unless ``OPTIONS["pool"]`` is False, and sized by the settings of
``dbresilience.conf``; a dictionary there is handed to psycopg's pool on top of them. ``CONN_HEALTH_CHECKS = True`` has
each connection asked at every checkout; without it only those that lay unused for half a second.
"""

from __future__ import annotations

import sys
import threading
import time
from math import inf
from typing import Any, ClassVar, Final

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import Error
from django.db.backends.base.base import NO_DB_ALIAS, RAN_DB_VERSION_CHECK
from django.db.backends.postgresql import base as django_base
from django.db.backends.postgresql.psycopg_any import register_tzloader
from psycopg import IsolationLevel
from psycopg.pq import Format, TransactionStatus

from dbresilience.conf import pool_options, pool_settings
from dbresilience.errors import ConnectionLost
from dbresilience.history import HISTORY_SQL
from dbresilience.interruptions import is_end_interrupted
from dbresilience.observations.errors import observe_error
from dbresilience.observations.processes import register_pools
from dbresilience.postgresql import forking
from dbresilience.postgresql.connection import Connection
from dbresilience.postgresql.cursors import ServerBindingServerSideCursor, ServerSideCursor
from dbresilience.postgresql.limits import connection_prepare, limits_of
from dbresilience.postgresql.pool import Pool
from dbresilience.postgresql.schema import DatabaseSchemaEditor
from dbresilience.postgresql.stats import open_pools, pool_stats, pools
from dbresilience.postgresql.watcher import Watcher
from dbresilience.work import long_operation_of

# Plain names: reading a member of an enumeration takes as long as asking for a lock.
_READ_COMMITTED: Final = IsolationLevel.READ_COMMITTED
_IDLE: Final = int(TransactionStatus.IDLE)
_UNUSABLE: Final = frozenset({TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN})


class DatabaseWrapper(django_base.DatabaseWrapper):
    """One thread's connection, borrowed from the process's pool."""

    SchemaEditorClass = DatabaseSchemaEditor
    begins_itself: bool = False
    """Whether the transaction that is being entered sends BEGIN itself: the session stays in autocommit mode then."""
    waits_until: float | None = None
    """Monotonic instant by which a connection must be had; None waits for as long as the pool does."""

    # Apart from those of Django's own backend, which may serve another alias.
    _connection_pools: ClassVar[dict[str, Pool]] = pools

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refresh_at = inf
        self._lender: Pool | None = None
        self._limits: tuple[dict[str, Any], dict[str, Any]] | None = None
        # Identities of exceptions: what was being handled when the transaction began, and the error of a rollback that
        # nobody but close() will tell of.
        self._handled_at_begin = id(None)
        self._untold: int | None = None

    @property
    def pool(self) -> Pool | None:
        """The pool of this alias, made when it is first asked for; None when it is turned off."""
        options = self.settings_dict["OPTIONS"].get("pool", True)
        if self.alias == NO_DB_ALIAS or not options:
            return None
        found = self._connection_pools.get(self.alias)
        if found is None:
            # setdefault, so that of several threads that come first the pools of all but one are dropped unopened.
            found = self._connection_pools.setdefault(self.alias, self._new_pool(options))
        return found

    def close_pool(self) -> None:
        """Close the pool of this alias, if there is one; the next use makes a new one."""
        pool = self._connection_pools.pop(self.alias, None)
        if pool is not None:
            pool.close()

    def get_connection_params(self) -> dict[str, Any]:
        """As Django's, with an end for connecting, for each statement and for a peer that fell silent."""
        if self._lender is not None:
            # Those of a pool were given to it when it was made.
            return {}
        params: dict[str, Any] = super().get_connection_params()
        if self._limits is None:
            # Once for each wrapper.
            self._limits = limits_of(pool_settings(), str(params.get("options", "")))
        defaults, overrides = self._limits
        return defaults | params | overrides

    def connect(self) -> None:
        """As Django's, without working out how to connect when a pool is there that knows; failures are counted."""
        self._lender = self.pool
        try:
            super().connect()
        except (psycopg.Error, Error) as exc:
            observe_error(exc)
            raise
        finally:
            self._lender = None

    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        """Borrow a connection, or make one when there is no pool."""
        level = self.settings_dict["OPTIONS"].get("isolation_level")
        try:
            self.isolation_level = _READ_COMMITTED if level is None else IsolationLevel(level)
        except ValueError as exc:
            raise ImproperlyConfigured(
                f"Invalid transaction isolation level {level} specified. Use one of the psycopg.IsolationLevel values."
            ) from exc
        pool = self._lender or self.pool
        if pool is None:
            connection = Connection.connect(**conn_params)
            connection_prepare(connection)
            self._refresh_at = inf
        else:
            if pool.closed:
                pool.open()
                forking.watch()
            left = None if self.waits_until is None else max(0.0, self.waits_until - time.monotonic())
            connection = pool.getconn(None if left is None else min(left, pool.timeout))
            self._refresh_at = connection.lent_at + pool.lifetime
        if level is not None:
            connection.isolation_level = self.isolation_level
        self._untold = None
        return connection

    def init_connection_state(self) -> None:
        """As Django's; what there is to do to a connection of the pool, the pool did."""
        if self._lender is None or self.alias not in RAN_DB_VERSION_CHECK:
            super().init_connection_state()

    def chunked_cursor(self) -> Any:
        """As Django's; a session that has read part of a result is not exchanged for a fresh one."""
        self._refresh_at = inf
        return super().chunked_cursor()

    def create_cursor(self, name: str | None = None) -> Any:
        """As Django's, observed; Django names the classes of those with a name itself."""
        session = self.connection
        if name:
            is_binding = self.settings_dict["OPTIONS"].get("server_side_binding") is True
            factory: Any = ServerBindingServerSideCursor if is_binding else ServerSideCursor
            # A session is in autocommit mode in a transaction that began itself, too, and the cursor ends with that.
            holds = session.autocommit and session.pgconn.transaction_status == _IDLE
            cursor = factory(session, name, scrollable=False, withhold=holds)
        else:
            cursor = session.cursor()
        if self.timezone != session.adapters.get_loader(django_base.TIMESTAMPTZ_OID, Format.TEXT).timezone:
            register_tzloader(self.timezone, cursor)
        return cursor

    def rollback(self) -> None:
        """As Django's; one that fails is counted, and the connection is not used again."""
        handled = id(sys.exc_info()[1])
        try:
            super().rollback()
        except Error as exc:
            self._count("rollback_failures")
            # Nothing was raised since the transaction began: the block ends as if it had succeeded.
            self._untold = id(exc) if handled == self._handled_at_begin else None
            raise

    def close(self) -> None:
        """As Django's, but a transaction whose connection was lost never ends as if it had succeeded.

        ``atomic`` swallows the error of a rollback and closes the connection. When the block itself ended without an
        error (it had swallowed the one that said that the connection is gone), nobody would ever hear of it.

        Raises:
            ConnectionLost: in just that case.
        """
        untold, self._untold = self._untold, None
        failure = sys.exc_info()[1]
        super().close()
        if failure is not None and id(failure) == untold:
            raise ConnectionLost(ConnectionLost.__doc__) from failure

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        """As Django's, but a block that lost its connection does not connect anew only to end.

        Connecting may take as long as the outage does, and its error would hide the one that matters. A connection just
        borrowed is in autocommit mode already.
        """
        session = self.connection
        if session is None and autocommit and not self.in_atomic_block and self.settings_dict["AUTOCOMMIT"]:
            self.run_commit_hooks_on_set_autocommit_on = False
            return
        if self._lender is not None and autocommit and session.autocommit:
            self.autocommit = True
            return
        super().set_autocommit(autocommit, force_begin_transaction_with_broken_autocommit)

    def _set_autocommit(self, autocommit: bool) -> None:
        session = self.connection
        is_idle = session.pgconn.transaction_status == _IDLE
        if not autocommit:
            self._handled_at_begin = id(sys.exc_info()[1])
            # While connecting, too, a database without autocommit is told so.
            if self.begins_itself and is_idle and self.settings_dict["AUTOCOMMIT"]:
                return
        if session.autocommit != autocommit or not is_idle:
            is_unusable = session.pgconn.transaction_status in _UNUSABLE and sys.exc_info()[1] is not None
            if autocommit and (is_unusable or (not is_idle and is_end_interrupted())):
                # Interrupted before or in the middle of COMMIT: its error would hide the interruption.
                self.close()
                return
            if autocommit and not self.run_commit_hooks_on_set_autocommit_on:
                # Interrupted, too: what waited for that commit does not wait for the next one's.
                self.run_on_commit = []
            # Nothing is sent, yet setting what is set takes as long as all else of a checkout.
            super()._set_autocommit(autocommit)  # type: ignore[misc]

    def forget_connection(self) -> None:
        """After a fork, in the child: drop the parent's connection without a word to the server.

        A transaction that was open stays the parent's; here the block can only end.
        """
        self.connection = None
        self.run_on_commit = []
        if self.in_atomic_block:
            self.closed_in_transaction = True
            self.needs_rollback = True

    def _close(self) -> None:
        connection = self.connection
        if isinstance(connection, Connection) and connection.borrowing is not None:
            try:
                connection._pool.putconn(connection)  # type: ignore[union-attr]
            except psycopg.Error:
                with self.wrap_database_errors:
                    raise
            self.connection = None
        else:
            super()._close()  # type: ignore[misc]

    def _cursor(self, name: str | None = None) -> Any:
        if time.monotonic() > self._refresh_at:
            self._refresh()
        # As Django's, which asks again and again what is known here.
        if self.health_check_enabled and not self.health_check_done:  # type: ignore[attr-defined]
            self.close_if_health_check_failed()
        if self.connection is None:
            self.ensure_connection()
        with self.wrap_database_errors:
            return self._prepare_cursor(self.create_cursor(name))  # type: ignore[attr-defined]

    def _refresh(self) -> None:
        """Exchange a session that is too old, unless it holds something that would be lost with it."""
        if self.connection is None or self.in_atomic_block or not self.autocommit or self.connection.unlimited:
            return
        if long_operation_of(threading.get_ident()) is not None:
            return
        self._count("refreshed")
        self.close()

    def _new_pool(self, options: Any) -> Pool:
        if self.settings_dict.get("CONN_MAX_AGE", 0) != 0:
            raise ImproperlyConfigured(
                f'Pooling doesn\'t support persistent connections. Set CONN_MAX_AGE of "{self.alias}" to 0.'
            )
        strict = bool(self.settings_dict["CONN_HEALTH_CHECKS"])
        return Pool(
            alias=self.alias,
            config=pool_settings(),
            strict=strict,
            # In autocommit mode; Django sets it as it needs it. Of a copy, as what follows: this wrapper is borrowing.
            kwargs=self.copy().get_connection_params() | {"autocommit": True},
            # Of a copy: this wrapper belongs to a thread, and must be collected with it.
            configure=self.copy()._configure_pooled,
            check=Pool.check_connection if strict else None,
            **pool_options(self.alias, options),
        )

    def _configure_pooled(self, connection: Connection) -> None:
        connection_prepare(connection)
        connection.watch_for_farewell()
        self._configure_connection(connection)  # type: ignore[attr-defined]
        (result,) = connection.exchange(HISTORY_SQL.encode())
        connection.history = (result.get_value(0, 0) or b"").decode()

    def _count(self, name: str) -> None:
        pool = self._connection_pools.get(self.alias)
        if pool is not None:
            pool.counted[name] += 1


register_pools(pool_stats)
forking.install(pools, Watcher(open_pools))
