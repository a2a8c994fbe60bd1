"""Applying events in savepoints, cut in halves until the event that fails stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from django.db import Error, OperationalError, connection, transaction

from dbresilience.error_texts import error_text, traceback_text
from outbox.events import Event
from outbox.failures import is_database_trouble
from projections.errors import ApplyError, ErrorClass
from projections.projection import Batch, Projection

MESSAGE_LENGTH: Final = 1_000
TRACEBACK_LENGTH: Final = 8_000
Aggregate = tuple[str, str]

_kind: Final = attrgetter("type", "schema_version")


@dataclass(frozen=True, slots=True)
class Failed:
    """One event that could not be applied.

    Attributes:
        event: the event.
        error_class: why, in short.
        code: stable word, for grouping.
        message: what the error said, bounded.
        traceback: bounded.
    """

    event: Event
    error_class: ErrorClass
    code: str
    message: str
    traceback: str = ""


def events_apply(projection: Projection, build_id: int, events: Sequence[Event]) -> list[Failed]:
    """Apply events to the tables of a build, in savepoints of the current transaction.

    After an event failed, later ones of its aggregate are left out; they wait behind it.

    Returns:
        What failed; the effects of all else are kept.

    Raises:
        django.db.Error: the database is in trouble, and no event is to blame; the whole batch is to be tried again.
    """
    known, failures = _known(projection, events)
    if known:
        failures += _apply(projection, build_id, known, whole=True)
    return sorted(failures, key=lambda failure: failure.event.position)


def those_through(events: Sequence[Event], failures: Sequence[Failed]) -> Sequence[Event]:
    """The events that neither failed nor wait behind one of their aggregate that did."""
    if not failures:
        return events
    stops = {failure.event.aggregate: failure.event.position for failure in failures}
    return [event for event in events if event.position < stops.get(event.aggregate, event.position + 1)]


def _known(projection: Projection, events: Sequence[Event]) -> tuple[Sequence[Event], list[Failed]]:
    """Those of a type and version that the projection knows, and the first of each aggregate that is not."""
    types = projection.types
    if types is None or all(version <= types.get(type_, version - 1) for type_, version in set(map(_kind, events))):
        return events, []
    stopped: set[Aggregate] = set()
    known: list[Event] = []
    failures: list[Failed] = []
    for event in events:
        newest = types.get(event.type)
        if stopped and event.aggregate in stopped:
            continue
        if newest is not None and event.schema_version <= newest:
            known.append(event)
        elif newest is not None:
            text = f"{event.type} has schema version {event.schema_version}; {newest} is the newest known."
            failures.append(Failed(event, ErrorClass.SCHEMA, "newer_schema", text))
            stopped.add(event.aggregate)
        elif not projection.ignores_unknown_types:
            text = f"{projection} does not know events of type {event.type}."
            failures.append(Failed(event, ErrorClass.UNKNOWN_TYPE, "unknown_type", text))
            stopped.add(event.aggregate)
    return known, failures


def _apply(projection: Projection, build_id: int, events: Sequence[Event], *, whole: bool = False) -> list[Failed]:
    try:
        with transaction.atomic():
            if not whole:
                # The check of an earlier half was brought forward for the whole transaction.
                _constraints("DEFERRED")
            projection.apply(Batch(events, build_id))
            # A deferred constraint would speak up at COMMIT, when nobody can tell whose fault it is.
            _constraints("IMMEDIATE")
    except Exception as exc:
        if isinstance(exc, Error) and is_database_trouble(exc):
            raise
        if len(events) == 1:
            return [_failed(events[0], exc)]
    else:
        return []
    middle = len(events) // 2
    failures = _apply(projection, build_id, events[:middle])
    behind = {failure.event.aggregate for failure in failures}
    rest = [event for event in events[middle:] if event.aggregate not in behind]
    return failures + (_apply(projection, build_id, rest) if rest else [])


def _constraints(when: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET CONSTRAINTS ALL {when}")


def _failed(event: Event, exc: Exception) -> Failed:
    return Failed(
        event=event,
        error_class=_class_of(exc),
        code=type(exc).__name__,
        message=error_text(exc)[:MESSAGE_LENGTH],
        traceback=traceback_text(exc)[-TRACEBACK_LENGTH:],
    )


def _class_of(exc: Exception) -> ErrorClass:
    match exc:
        case ApplyError():
            return exc.error_class
        case KeyError():
            # A field that the payload does not have.
            return ErrorClass.SCHEMA
        case OperationalError() | OSError():
            return ErrorClass.TRANSIENT
        case _:
            return ErrorClass.POISON
