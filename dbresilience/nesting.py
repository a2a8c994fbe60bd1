"""A run inside another transaction: a savepoint, or part of that transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import Error, transaction

from dbresilience.errors import CommitUnknown, DeadlineExceeded
from dbresilience.options import Options
from dbresilience.postgresql.connection import CANCEL_TIMEOUT, POLITENESS


@contextmanager
def nested_run(connection: Any, options: Options) -> Iterator[None]:
    """Run the block in a savepoint, unless the outer transaction has runs inside join it.

    Args:
        connection: Django's, in a transaction.
        options: of them the alias and the instant by which the block must be over.

    Raises:
        DeadlineExceeded: it was not; the savepoint was undone.
        Exception: that of a model which could not be saved, when the block caught it: the savepoint was undone.
    """
    savepoint = not getattr(connection, "joins_nested_runs", False)
    known = connection.rollback_exc
    with transaction.atomic(using=options.using, savepoint=savepoint):
        with _kept(connection, options.expires):
            yield
        swallowed = connection.rollback_exc
        if connection.needs_rollback and swallowed is not None and swallowed is not known:
            raise swallowed


@contextmanager
def _kept(connection: Any, expires: float | None) -> Iterator[None]:
    """Have the client give up at this instant; the server knows only the deadline of the whole."""
    session = connection.connection
    if expires is None or session is None:
        yield
        return
    outer, politeness = getattr(session, "deadline", None), getattr(session, "politeness", POLITENESS)
    if outer is None or expires < outer:
        # The whole goes on, which it cannot on a connection that was dropped.
        session.deadline, session.politeness = expires, CANCEL_TIMEOUT
    try:
        yield
    except CommitUnknown:
        raise
    except Error as exc:
        if time.monotonic() >= expires:
            raise DeadlineExceeded(DeadlineExceeded.__doc__) from exc
        raise
    finally:
        session.politeness = politeness
        # One that was given back is somebody else's.
        if connection.connection is session:
            session.deadline = outer
