"""Verifying: the rows that follow from the log by the simplest way there is, compared with those that are there.

Everything is read in one snapshot: checkpoint, log and rows. So runners may go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import connection

from dbresilience.transactions import run_in_transaction
from operations.errors import ProblemError
from outbox.events import Event
from outbox.ordered import ordered_read
from outbox.retention import log_is_whole
from projections.models import Build, BuildState, Detour, Failure, FailureState
from projections.models.failure import PASSED_OVER, PUT_RIGHT
from projections.projection import Projection, Rows, Table
from projections.registry import projection_named

SHOWN: Final = 20
READ_AT_ONCE: Final = 5_000


class NotVerifiable(ProblemError):
    """Retention has removed the first events of its topics: what should follow from the log is not known any more."""

    status = 409
    code = "log_not_whole"
    title = "Log not whole"


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not what follows from the log.

    Attributes:
        table: the view's name.
        key: the row's key.
        kind: missing, unexpected or different.
        columns: the names of the columns that differ.
    """

    table: str
    key: tuple[Any, ...]
    kind: str
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        key = ", ".join(str(part) for part in self.key)
        return f"{self.table} ({key}): {self.kind} {', '.join(self.columns)}".rstrip()


@dataclass(slots=True)
class Verified:
    """What a verification found.

    Attributes:
        projection: its name.
        build: the build that was verified.
        cursor: its checkpoint.
        events: how many events the rows should follow from.
        rows: how many rows should be there.
        count: how many rows differ.
        differences: the first of them.
        put_right: events in place of which a person put rows right, by hand or with a compensation. Those rows do not
            follow from the log, and differ.
    """

    projection: str
    build: int
    cursor: int
    events: int = 0
    rows: int = 0
    count: int = 0
    differences: list[Difference] = field(default_factory=list)
    put_right: int = 0


def projection_verify(*, name: str, build_id: int | None = None) -> Verified:
    """Compare a read model with what follows from the log up to its checkpoint.

    Events that wait behind a failure are left out, as are those that a person decided to go on without. Holds all
    rows in memory: it is a proof, not a routine.

    Args:
        name: of the projection.
        build_id: of one of its builds; None takes the one that readers see.

    Raises:
        UnknownProjection: none of this name is listed.
        Build.DoesNotExist: nothing has been built yet.
        NotVerifiable: the log's first events are gone.
    """

    if not log_is_whole(projection_named(name).topics):
        raise NotVerifiable

    def work() -> Verified:
        builds = Build.objects.filter(projection=name).exclude(state=BuildState.RETIRED)
        build = builds.get(state=BuildState.LIVE) if build_id is None else builds.get(pk=build_id)
        projection = projection_named(name, build.version)
        found = Verified(name, build.pk, build.cursor)
        expected = projection.expected(_count(events_applied(projection, build), found))
        decided = Failure.objects.filter(build=build, state=FailureState.RESOLVED, strategy__in=PUT_RIGHT)
        found.put_right = decided.count()
        for table in projection.tables:
            _compare(table, build.pk, expected.get(table.name, {}), found)
        return found

    projection_named(name)
    return run_in_transaction(work, isolation="repeatable read", read_only=True, repeatable=False)


def events_applied(projection: Projection, build: Build) -> Iterator[Event]:
    """The events that took effect in a build, in the order of the log; within one snapshot."""
    waiting = {
        (detour.aggregate_type, detour.aggregate_id): detour.next_sequence
        for detour in Detour.objects.filter(build=build)
    }
    left_out = set(
        Failure.objects.filter(build=build, state="resolved", strategy__in=PASSED_OVER).values_list(
            "event_id", flat=True
        )
    )
    after = 0
    while after < build.cursor:
        read = ordered_read(after=after, limit=READ_AT_ONCE, topics=projection.topics, upto=build.cursor)
        if not read.places:
            return
        for event in read.events:
            is_known = projection.types is None or event.type in projection.types
            if is_known and event.id not in left_out and event.sequence < waiting.get(event.aggregate, 2**63):
                yield event
        after = read.reached


def _count(events: Iterator[Event], found: Verified) -> Iterator[Event]:
    for event in events:
        found.events += 1
        yield event


def _compare(table: Table, build_id: int, expected: Rows | dict[Any, Any], found: Verified) -> None:
    names = ", ".join(f'"{name}"' for name in (*table.key, *table.columns))
    left = dict(expected)
    found.rows += len(left)
    width = len(table.key)
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT {names} FROM "{table.of_build(build_id)}"')  # noqa: S608 - names of our own
        while rows := cursor.fetchmany(READ_AT_ONCE):
            for row in rows:
                key, values = row[:width], row[width:]
                wanted = left.pop(key, None)
                if wanted is None:
                    _note(found, Difference(table.name, key, "unexpected"))
                elif wanted != values:
                    columns = [name for name, a, b in zip(table.columns, wanted, values, strict=True) if a != b]
                    _note(found, Difference(table.name, key, "different", tuple(columns)))
    for key in left:
        _note(found, Difference(table.name, key, "missing"))


def _note(found: Verified, difference: Difference) -> None:
    found.count += 1
    if len(found.differences) < SHOWN:
        found.differences.append(difference)
