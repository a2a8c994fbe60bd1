"""Blocks in which a statement may take as long as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg.pq import TransactionStatus

# Serve without_command_timeout. LOCAL in a transaction: it ends with it, whichever way that ends, and behind PgBouncer
# nobody else gets it.
LIFT_LOCALLY_SQL: Final = "SET LOCAL statement_timeout = 0"
LIFT_SQL: Final = "SET statement_timeout = 0"
RESTORE_SQL: Final = "RESET statement_timeout"


@contextmanager
def without_command_timeout(*, using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Lift ``DB_COMMAND_TIMEOUT`` for the block: for maintenance. Migrations do so by themselves.

    Args:
        using: alias of the database.
    """
    wrapper: Any = connections[using]
    wrapper.ensure_connection()
    session: psycopg.Connection[Any] = wrapper.connection
    patience = getattr(session, "patience", None)
    local = wrapper.in_atomic_block
    try:
        if patience is not None:
            session.patience, session.unlimited = None, True  # type: ignore[attr-defined]
            with wrapper.wrap_database_errors:
                session.execute(LIFT_LOCALLY_SQL if local else LIFT_SQL)
        yield
    finally:
        # A session that was given back meanwhile was closed by that.
        if patience is not None and not session.closed:
            session.patience = patience  # type: ignore[attr-defined]
            # In a transaction it ends with that at the latest.
            restored = local
            status = session.info.transaction_status
            if status == (TransactionStatus.INTRANS if local else TransactionStatus.IDLE):
                with wrapper.wrap_database_errors:
                    session.execute(RESTORE_SQL if not local else "SET LOCAL statement_timeout TO DEFAULT")
                restored = True
            # What could not be put back goes with its session.
            session.unlimited = not restored  # type: ignore[attr-defined]
