"""Projections whose handlers see one event at a time and say what to write in statements of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from django.db import connection

from outbox.events import Event
from projections.projection import Batch, Projection

Statement = tuple[str, Sequence[Any] | Mapping[str, Any]]


class SingleEventProjection(Projection):
    """The simpler kind to write: ``handle`` returns the statements of one event.

    They are sent in their order, equal ones in a row without waiting for the answer to each (psycopg's pipeline). A
    projection that folds a batch into one statement is several times as fast.
    """

    def handle(self, event: Event, batch: Batch) -> Iterable[Statement]:
        """What one event writes; names of tables come from ``batch.table``.

        Raises:
            ApplyError: what kind of failure it is.
        """
        raise NotImplementedError

    def apply(self, batch: Batch) -> None:
        statements = [statement for event in batch for statement in self.handle(event, batch)]
        with connection.cursor() as cursor:
            for sql, group in groupby(statements, key=lambda statement: statement[0]):
                cursor.executemany(sql, [parameters for _, parameters in group])
