"""Reading one's own writes: waits until an event took effect in a read model."""

from __future__ import annotations

import time
from typing import Final
from uuid import UUID

from django.db import connection
from django.db.models import TextChoices

from operations.errors import FieldError, ProblemError
from projections.registry import projections

LONGEST_SECONDS: Final = 10.0

# Where an event stands with the build that readers see. By uid or by id, each by an index of its own.
STATUS_SQL: Final = """
SELECT CASE WHEN l.position IS NULL OR l.position > b.cursor THEN 'pending'
            WHEN f.id IS NOT NULL THEN 'failed'
            WHEN d.id IS NOT NULL AND e.sequence >= d.next_sequence THEN 'blocked'
            ELSE 'applied' END
  FROM outbox_event e
  JOIN projections_build b ON b.projection = %(projection)s AND b.state = 'live'
  LEFT JOIN outbox_log l ON l.event_id = e.id
  LEFT JOIN projections_detour d ON d.build_id = b.id AND d.aggregate_type = e.aggregate_type
       AND d.aggregate_id = e.aggregate_id
  LEFT JOIN projections_failure f ON f.event_id = e.id AND f.build_id = b.id AND f.state IN ('retrying', 'manual')
"""
# Builds that are fed and not past an event, or whose aggregate waits before it.
BEHIND_SQL: Final = """
SELECT DISTINCT b.projection, b.version, e.topic
  FROM outbox_event e
  JOIN projections_build b ON b.state <> 'retired'
  LEFT JOIN outbox_log l ON l.event_id = e.id
  LEFT JOIN projections_detour d ON d.build_id = b.id AND d.aggregate_type = e.aggregate_type
       AND d.aggregate_id = e.aggregate_id
 WHERE e.id = %(event)s AND (l.position IS NULL OR l.position > b.cursor OR d.id IS NOT NULL)
 ORDER BY b.projection
"""
BY_ID_SQL: Final = f"{STATUS_SQL} WHERE e.id = %(event)s"
BY_UID_SQL: Final = f"{STATUS_SQL} WHERE e.uid = %(event)s"


class Applied(TextChoices):
    """Where an event stands with a read model."""

    APPLIED = "applied"
    PENDING = "pending"
    BLOCKED = "blocked"
    FAILED = "failed"


class UnknownEvent(ProblemError):
    """There is no such event."""

    code = "unknown_event"
    title = "Unknown event"


class ReadModelBehind(ProblemError):
    """The read model has not come so far yet. Try again."""

    status = 503
    code = "read_model_behind"
    title = "Read model behind"


class ReadModelBlocked(ProblemError):
    """The event, or one before it of the same thing, could not be applied; it takes effect when that is resolved."""

    status = 409
    code = "read_model_blocked"
    title = "Read model blocked"


def wait_for(event: int | UUID, projection: str, timeout: float) -> Applied:
    """Wait until an event took effect in what readers see; call it after the commit, outside of a transaction.

    Args:
        event: what ``publish`` returned, or the event's uid.
        projection: name of the projection.
        timeout: seconds.

    Returns:
        APPLIED as soon as it is; BLOCKED or FAILED as soon as that is known, since waiting a little will not help;
        PENDING when the time is over.

    Raises:
        UnknownEvent: there is no such event.
    """
    deadline = time.monotonic() + timeout
    pause = 0.005
    statement = BY_UID_SQL if isinstance(event, UUID) else BY_ID_SQL
    while True:
        with connection.cursor() as cursor:
            cursor.execute(statement, {"projection": projection, "event": event})
            row = cursor.fetchone()
        if row is None and _exists(event):
            # Nothing has been built yet.
            row = (Applied.PENDING.value,)
        if row is None:
            raise UnknownEvent
        status = Applied(row[0])
        if status is not Applied.PENDING or time.monotonic() >= deadline:
            return status
        time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.5, 0.1)


def projections_behind(event_id: int) -> list[str]:
    """Names of the read models that read an event's topic and of which a build has not yet come past the event,
    whoever reads that build."""
    with connection.cursor() as cursor:
        cursor.execute(BEHIND_SQL, {"event": event_id})
        rows = cursor.fetchall()
    return list(dict.fromkeys(name for name, version, topic in rows if _reads(name, version, topic)))


def _reads(name: str, version: int, topic: str) -> bool:
    """Whether a build may hold something of a topic; of one that is not listed any more, nobody knows."""
    known = [one for one in projections() if (one.name, one.version) == (name, version)]
    return not known or any(topic in one.topics for one in known)


def require_applied(parameter: str | None, projection: str, timeout: float = 5.0) -> None:
    """For views: wait for the event that a client named in ``?wait_for=``, if it named one.

    Raises:
        UnknownEvent: what it named is no event.
        ReadModelBehind: it did not take effect in time.
        ReadModelBlocked: it cannot take effect now.
    """
    if parameter is None:
        return
    status = wait_for(_event(parameter), projection, min(timeout, LONGEST_SECONDS))
    if status is Applied.PENDING:
        raise ReadModelBehind(headers={"Retry-After": "1"})
    if status is not Applied.APPLIED:
        raise ReadModelBlocked


def _event(parameter: str) -> int | UUID:
    text = parameter.strip()
    if text.isascii() and text.isdecimal() and 0 < len(text) <= 18:
        return int(text)
    try:
        return UUID(text)
    except ValueError as exc:
        detail = "The id or uid of an event."
        raise UnknownEvent(errors=[FieldError(parameter="wait_for", code="invalid_value", detail=detail)]) from exc


def _exists(event: int | UUID) -> bool:
    column = "uid" if isinstance(event, UUID) else "id"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT EXISTS (SELECT FROM outbox_event WHERE {column} = %s)", [event])  # noqa: S608
        return bool(cursor.fetchone()[0])
