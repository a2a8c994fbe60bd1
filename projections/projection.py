"""Projections: classes that turn the log's events into rows to read from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from outbox.events import Event

Rows = dict[str, dict[tuple[Any, ...], tuple[Any, ...]]]
"""By table and key (the values of the table's key columns): the other columns, in the order of ``Table.columns``."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a read model.

    ``name`` is what readers see: a view on the tables of the build that is live. ``name_shape`` is an empty table that
    a migration makes; each build gets tables of its own of that shape.

    Attributes:
        name: of the view.
        key: columns that tell a row from all others.
        columns: the other columns that are computed from events; those that are not named are not compared.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...] = ()

    @property
    def shape(self) -> str:
        return f"{self.name}_shape"

    def of_build(self, build_id: int) -> str:
        """The name of the table of one build."""
        return f"{self.name}_{build_id}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Events to be applied to the tables of one build, in the order of the log.

    Attributes:
        events: those to apply.
        build_id: whose tables they go to.
    """

    events: Sequence[Event]
    build_id: int

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def table(self, table: Table) -> str:
        """The quoted name of this build's table, to be put into a statement."""
        return f'"{table.of_build(self.build_id)}"'


class Projection:
    """Base of read models. ``apply`` runs inside the transaction that moves the checkpoint: each event takes effect
    exactly once, and in the order of its aggregate.

    When an event fails, the later ones of its aggregate wait behind it, and those of other aggregates do not: rows must
    not depend on the order of events of different aggregates.

    Attributes:
        name: its name for ever, in the database, the console and the API.
        version: of the rows that it computes; one more whenever an old event would give other rows. Both versions are
            listed in PROJECTIONS until readers were switched and the old one was retired.
        topics: the topics that it reads.
        tables: what it writes.
        types: the types of events that it knows, each with the newest schema version; None takes whatever comes. Others
            are failures, which newer code may resolve.
        ignores_unknown_types: whether events of types that are not in ``types`` are passed over instead.
        keyed_by: the aggregate type, if each row belongs to one aggregate and follows from its events alone. Such rows
            can be computed anew one aggregate at a time; see ``forget``.
        reads: those of ``outbox.ordered.DETAILS`` that it looks at, as in ``frozenset({"origin"})``; the others may be
            None, which makes reading about a third cheaper. None reads all.
        batch_size: events at a time, never more; None takes PROJECTIONS_BATCH_SIZE, and more of them while it is far
            behind.
        compensations: functions by name that an operator may choose in place of an event that cannot be applied. Each
            is called with a batch of that one event, in the transaction that lets its aggregate go on.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    topics: ClassVar[frozenset[str]]
    tables: ClassVar[tuple[Table, ...]]
    types: ClassVar[Mapping[str, int] | None] = None
    ignores_unknown_types: ClassVar[bool] = False
    keyed_by: ClassVar[str | None] = None
    reads: ClassVar[frozenset[str] | None] = None
    batch_size: ClassVar[int | None] = None

    def apply(self, batch: Batch) -> None:
        """Write what the events change; best with one statement for the whole batch.

        Raises:
            ApplyError: what kind of failure it is.
            Exception: the batch is rolled back and cut in halves, until the event that raises stands alone.
        """
        raise NotImplementedError

    def forget(self, batch: Batch) -> None:
        """Delete the rows of the aggregates of the batch's events; needed where ``keyed_by`` is set.

        The engine applies all of their events again in the same transaction.
        """
        raise NotImplementedError

    def bootstrap(self, batch: Batch) -> None:
        """Fill the tables of a new build from the present state, where retention has removed the log's first events.

        Called in the transaction that makes the build, with a batch without events. It sees exactly what the events up
        to the build's checkpoint have done; every later event comes to ``apply``, and no earlier one does. Rows that
        are guarded by the sequence of their aggregate take it from ``outbox_aggregate``.
        """
        raise NotImplementedError

    def expected(self, events: Iterable[Event]) -> Rows:
        """The rows that follow from all events, computed in the simplest way, for ``projection_verify``.

        It shares no code with ``apply``, or both could be wrong alike.
        """
        raise NotImplementedError

    @property
    def compensations(self) -> Mapping[str, Any]:
        return {}

    def __str__(self) -> str:
        return f"{self.name} {self.version}"
