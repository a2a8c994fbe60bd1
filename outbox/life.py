"""What the log knows of the life of things: events, where each stands with whom, and attempts to bring it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
from django.db import connection
from django.urls import reverse

from operations.identifiers import uuid_of
from operations.life.sources import CORRELATION, SHOWN, Entry, LifeSource, Name, Subject, Term, Thread, Told, first_of
from outbox.console.records import TONES
from outbox.events import NAME_LENGTH
from outbox.masking import may_read_payload, payload_masked
from outbox.models import Delivery, DeliveryAttempt, StoredEvent
from outbox.models.delivery import Outcome
from outbox.status import EventStatus, SubscriberStatus, events_statuses, worst_status

EVENT: Final = "event"
OVER: Final = (EventStatus.PROCESSED, EventStatus.SKIPPED, EventStatus.REPLACED)
LARGEST: Final = 20_000
"""Characters of a payload that is shown; larger ones are on the page of their event."""

# The kinds of things that events were ever about: from one to the next by the primary key, whose first column it is.
KINDS_SQL: Final = """
WITH RECURSIVE kinds AS (
  (SELECT aggregate_type FROM outbox_aggregate ORDER BY aggregate_type LIMIT 1)
  UNION ALL
  SELECT (SELECT a.aggregate_type FROM outbox_aggregate a WHERE a.aggregate_type > k.aggregate_type
           ORDER BY a.aggregate_type LIMIT 1)
    FROM kinds k WHERE k.aggregate_type IS NOT NULL
)
SELECT a.aggregate_type FROM kinds k
  JOIN outbox_aggregate a ON a.aggregate_type = k.aggregate_type AND a.aggregate_id = %(id)s
 WHERE %(kind)s = '' OR k.aggregate_type = %(kind)s
"""
_COLUMNS: Final = """
e.id, e.uid::text, e.topic, e.type, e.aggregate_type, e.aggregate_id, e.sequence, e.origin, e.correlation_id,
e.causation_id, e.created_at,
CASE WHEN octet_length(e.payload::text) <= %(largest)s THEN e.payload::text END
"""
# The events of a thread, by index each, and no more of each than are shown, and one: by primary key; the first ones of
# a correlation id by outbox_event_correlation; the last ones of an aggregate by outbox_event_aggregate.
EVENTS_SQL: Final = f"""
SELECT {_COLUMNS} FROM outbox_event e WHERE e.id = ANY (%(ids)s::bigint[])
UNION
SELECT {_COLUMNS} FROM unnest(%(correlations)s::text[]) c (id)
 CROSS JOIN LATERAL (SELECT * FROM outbox_event e WHERE e.correlation_id = c.id AND e.correlation_id <> ''
                      ORDER BY e.id LIMIT %(most)s) e
UNION
SELECT {_COLUMNS} FROM unnest(%(kinds)s::text[], %(names)s::text[]) a (kind, name)
 CROSS JOIN LATERAL (SELECT * FROM outbox_event e WHERE e.aggregate_type = a.kind AND e.aggregate_id = a.name
                      ORDER BY e.sequence DESC LIMIT %(most)s) e
ORDER BY 1
"""  # noqa: S608 - columns of our own


@dataclass(frozen=True, slots=True)
class LivedEvent:
    """An event of a thread; the payload as text, or None where it is too large to be shown."""

    id: int
    uid: str
    topic: str
    type: str
    aggregate_type: str
    aggregate_id: str
    sequence: int
    origin: str
    correlation_id: str
    causation_id: str
    created_at: datetime
    payload: str | None

    @property
    def about(self) -> Name:
        return Name(self.aggregate_type, self.aggregate_id)


def events_of(thread: Thread) -> tuple[Sequence[LivedEvent], bool]:
    """The events of a thread, oldest first, and whether there are more; for all sources that build on events."""
    return thread.once("outbox.events", lambda: _events(thread))


def statuses_of(thread: Thread) -> dict[int, list[SubscriberStatus]]:
    """Where the events of a thread stand with whom."""
    return thread.once("outbox.statuses", lambda: events_statuses([event.id for event in events_of(thread)[0]]))


class LogLife(LifeSource):
    """Events, and their way to the subscribers of the log."""

    name = "log"
    title = "Log"
    permission = "outbox.view_storedevent"
    order = 20

    def recognise(self, term: Term) -> Sequence[Subject]:
        return [*_events_named(term), *_correlation_named(term), *_aggregates_named(term)]

    def tell(self, thread: Thread) -> Told:
        events, more = events_of(thread)
        statuses, readable = statuses_of(thread), may_read_payload(thread.request)
        return Told([_event(one, statuses.get(one.id, []), readable=readable) for one in events], more=more)


class DeliveriesLife(LifeSource):
    """Deliveries to the subscribers of the log: Kafka, synchronisations and whoever else reads it."""

    name = "deliveries"
    title = "Deliveries"
    permission = "outbox.view_delivery"
    order = 30

    def tell(self, thread: Thread) -> Told:
        events = {event.id: event for event in events_of(thread)[0]}
        # By outbox_delivery_event, and by outbox_attempt_event.
        failed, failed_more = first_of(
            Delivery.objects.filter(event_id__in=events).only("event_id", "subscription_id", "state", "resolved_at"),
            "event_id",
        )
        tried, tried_more = first_of(DeliveryAttempt.objects.filter(event_id__in=events), "event_id", "id")
        rows = {(one.event_id, one.subscription_id): one for one in failed}
        thread.parts.update(Name("delivery", str(one.pk)) for one in failed)
        entries = [
            _delivery(events[event], one, rows.get((event, one.subscriber)))
            for event, statuses in statuses_of(thread).items()
            for one in statuses
        ]
        entries += [_attempt(events[one.event_id], one, rows.get((one.event_id, one.subscriber))) for one in tried]
        return Told(entries, more=failed_more or tried_more)


def _events(thread: Thread) -> tuple[Sequence[LivedEvent], bool]:
    things = [name for name in thread.subject.names if name.kind not in (EVENT, CORRELATION)]
    values: dict[str, Any] = {
        "ids": [int(value) for value in thread.named(EVENT)],
        "correlations": [value for value in thread.named(CORRELATION) if value],
        "kinds": [name.kind for name in things],
        "names": [name.value for name in things],
        "most": SHOWN + 1,
        "largest": LARGEST,
    }
    with connection.cursor() as cursor:
        cursor.execute(EVENTS_SQL, values)
        found = [LivedEvent(*row) for row in cursor.fetchall()]
    # The event that was asked for stays, however many its correlation id has; of an aggregate the last ones.
    asked = [one for one in found if one.id in values["ids"]]
    others = [one for one in found if one.id not in values["ids"]]
    kept = others[-SHOWN:] if things else others[: SHOWN - len(asked)]
    return sorted([*asked, *kept], key=lambda one: one.id), len(kept) < len(others)


def _events_named(term: Term) -> list[Subject]:
    text = term.of(EVENT) or term.text
    events = StoredEvent.objects.only("id", "type", "correlation_id", "uid")
    if text.isascii() and text.isdigit() and len(text) < 19:
        found = events.filter(pk=int(text))
    elif (uid := uuid_of(text)) is not None:
        # By outbox_event_uid.
        found = events.filter(uid=uid)
    else:
        return []
    return [
        Subject(
            name=Name(EVENT, str(one.pk)),
            title=f"Event {one.pk}: {one.type}",
            others=frozenset([Name(CORRELATION, one.correlation_id)] if one.correlation_id else []),
        )
        for one in found[:2]
    ]


def _correlation_named(term: Term) -> list[Subject]:
    value = term.of(CORRELATION) or term.text
    # By outbox_event_correlation.
    known = len(value) <= NAME_LENGTH and StoredEvent.objects.filter(correlation_id=value).exclude(correlation_id="")
    return [Subject(name=Name(CORRELATION, value), title=f"Correlation id {value}")] if known and known.exists() else []


def _aggregates_named(term: Term) -> list[Subject]:
    kind, colon, value = term.text.partition(":")
    found = [("", term.text), *([(kind, value)] if colon else [])]
    subjects = []
    with connection.cursor() as cursor:
        for kind, value in found:
            if len(value) <= NAME_LENGTH:
                cursor.execute(KINDS_SQL, {"id": value, "kind": kind})
                subjects += [
                    Subject(name=Name(row[0], value), title=f"{row[0][:1].upper()}{row[0][1:]} {value}")
                    for row in cursor.fetchall()
                    if row[0] not in (EVENT, CORRELATION)
                ]
    return subjects


def _event(event: LivedEvent, statuses: Sequence[SubscriberStatus], *, readable: bool) -> Entry:
    status = worst_status(statuses)
    position = next((one.position for one in statuses if one.position is not None), None)
    place = "" if position is None else f", place {position} of the log"
    origin = f", origin {event.origin}" if event.origin else ""
    payload = None if event.payload is None else orjson.loads(event.payload)
    return Entry(
        kind="event",
        id=str(event.id),
        what=event.type,
        at=event.created_at,
        state=status.value,
        tone=TONES[status.value],
        text=f"event {event.id}, number {event.sequence} of {event.aggregate_type} {event.aggregate_id}{origin}{place}",
        url=reverse("admin:outbox_storedevent_change", args=[event.id]),
        about=[*_links(event), *_cause(event)],
        data=payload if readable else payload_masked(payload),
    )


def _links(event: LivedEvent) -> list[Name]:
    names = [Name(EVENT, str(event.id)), event.about]
    return [*names, Name(CORRELATION, event.correlation_id)] if event.correlation_id else names


def _cause(event: LivedEvent) -> list[Name]:
    """What caused it, where that is an event: its number or uid."""
    cause = event.causation_id
    return [Name(EVENT, cause)] if cause.isdigit() or uuid_of(cause) is not None else []


def _delivery(event: LivedEvent, one: SubscriberStatus, row: Delivery | None) -> Entry:
    is_over = one.status in OVER
    # When it went through is kept for a while only; that it did is known for ever.
    resolved = row.resolved_at if row is not None else None
    at = (resolved or one.processed_at or event.created_at) if is_over else None
    said = one.message if one.status is not EventStatus.PROCESSED else ""
    again = f"again at {one.next_attempt_at:%Y-%m-%d %H:%M:%S}" if one.next_attempt_at else ""
    exact = "" if resolved else "by then at the latest" if one.processed_at else "when is not kept any more"
    return Entry(
        kind="delivery",
        id=f"{event.id}/{one.subscriber}",
        what=f"{event.type} to {one.subscriber}",
        at=at,
        state=one.status.value,
        tone=TONES[one.status.value],
        attempts=one.attempts or None,
        text="; ".join(filter(None, (said, again, exact if is_over else ""))),
        url=_delivery_url(row),
        about=[Name(EVENT, str(event.id))],
    )


def _attempt(event: LivedEvent, one: DeliveryAttempt, row: Delivery | None) -> Entry:
    return Entry(
        kind="attempt",
        id=str(one.pk),
        what=f"Attempt {one.number} to bring {event.type} to {one.subscriber}",
        at=one.started_at,
        seconds=one.seconds,
        state=one.outcome,
        tone="good" if one.outcome == Outcome.DELIVERED else "bad",
        text=" ".join(filter(None, (one.code, one.message, one.response))),
        url=_delivery_url(row),
        about=[Name(EVENT, str(event.id))],
    )


def _delivery_url(row: Delivery | None) -> str:
    return "" if row is None else reverse("admin:outbox_delivery_change", args=[row.pk])
