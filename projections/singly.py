"""Projections whose handlers see one event at a time and say what to write in statements of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import psycopg
from django.db import connection
from django.db.backends.utils import CursorWrapper

from dbresilience.conf import pool_settings
from outbox.events import Event
from projections.projection import Batch, Projection

Statement = tuple[str, Sequence[Any] | Mapping[str, Any]]


class SingleEventProjection(Projection):
    """The simpler kind to write: ``handle`` returns the statements of one event.

    They are sent in their order without waiting for the answer to each (psycopg's pipeline), and the server plans equal
    ones once: parameters are bound in the server, so each statement is one alone. A projection that folds a batch into
    one statement is several times as fast.
    """

    def handle(self, event: Event, batch: Batch) -> Iterable[Statement]:
        """What one event writes; names of tables come from ``batch.table``.

        Raises:
            ApplyError: what kind of failure it is.
        """
        raise NotImplementedError

    def apply(self, batch: Batch) -> None:
        statements = [statement for event in batch for statement in self.handle(event, batch)]
        with _pipeline() as cursor:
            for sql, group in groupby(statements, key=lambda statement: statement[0]):
                cursor.executemany(sql, [parameters for _, parameters in group])


@contextmanager
def _pipeline() -> Iterator[Any]:
    """A cursor on the current transaction whose statements are sent ahead of their answers, prepared."""
    connection.ensure_connection()
    session: psycopg.Connection[Any] = connection.connection
    threshold = session.prepare_threshold
    # Behind PgBouncer a session's prepared statements would be in the way of whoever comes next.
    session.prepare_threshold = None if pool_settings().pgbouncer else 0
    try:
        # Errors of earlier statements come up where the pipeline ends, outside of the cursor.
        with connection.wrap_database_errors, session.pipeline(), psycopg.Cursor(session) as cursor:
            yield CursorWrapper(cursor, connection)
    finally:
        session.prepare_threshold = threshold
