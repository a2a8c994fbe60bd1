"""What is left of a transaction whose end was interrupted by what a handler of signals raised.

Such an error (Celery's soft time limit, Ctrl-C) may come between any two instructions, also after a block is over and
before COMMIT was sent. Nobody undoes the work then, and the next transaction would take itself for a part of this one.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Final

from django.db import Error
from django.db.transaction import Atomic
from psycopg.pq import TransactionStatus

_END: Final = Atomic.__exit__.__code__
_IDLE: Final = int(TransactionStatus.IDLE)


def is_end_interrupted() -> bool:
    """Whether the error that is being raised came up while an atomic block ended: the database's are undone there."""
    error = sys.exc_info()[1]
    where = error.__traceback__ if error is not None else None
    return where is not None and where.tb_frame.f_code is _END


def leave_nothing(connection: Any) -> None:
    """Close a connection that is not as an outermost transaction must leave it, which rolls back what it began.

    Args:
        connection: Django's, after the end of an outermost transaction raised something.
    """
    session = connection.connection
    is_open = session is not None and session.pgconn.transaction_status != _IDLE
    if not connection.in_atomic_block and connection.autocommit and not is_open:
        return
    connection.in_atomic_block = False
    connection.savepoint_ids, connection.atomic_blocks = [], []
    connection.needs_rollback = connection.closed_in_transaction = False
    connection.run_on_commit = []
    # What was raised says more than an error of closing.
    with suppress(Error):
        connection.close()
