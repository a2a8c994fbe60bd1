"""What consumer groups know of the life of things: the messages of Kafka that they handled, retry or gave up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from django.db import connection
from django.urls import reverse

from operations.life.sources import Entry, LifeSource, Name, Subject, Term, Thread, Told, first_of
from operations.overview import Tone
from operations.page_values import words
from outbox.life import EVENT, LivedEvent, events_of
from outbox.models import InboxMessage, ParkedMessage
from outbox.models.inbox import PLACE_LENGTH

MESSAGE: Final = "message"
TONES: Final[dict[str, Tone]] = {"retrying": "warn", "waiting": "warn", "dead": "bad", "resolved": "good"}
HANDLED: Final = ("success", "ignored")
# The groups that there are: from one to the next by the primary key of their partitions, of which there are few.
GROUPS_SQL: Final = "SELECT DISTINCT consumer_group FROM outbox_inbox_partition"


class ConsumedLife(LifeSource):
    """Events on their way back in from Kafka, by the names that they have there."""

    name = "consumed"
    title = "Consumed messages"
    permission = "outbox.view_parkedmessage"
    order = 35

    def recognise(self, term: Term) -> Sequence[Subject]:
        value = term.of(EVENT, MESSAGE) or term.text
        # By outbox_parked_event. Those of other producers have names of their own making.
        known = len(value) <= PLACE_LENGTH and ParkedMessage.objects.filter(event_id=value).exists()
        return [Subject(name=Name(MESSAGE, value), title=f"Message {value}")] if known else []

    def tell(self, thread: Thread) -> Told:
        events = {event.uid: event for event in events_of(thread)[0]}
        names = [*events, *thread.named(MESSAGE)]
        with connection.cursor() as cursor:
            cursor.execute(GROUPS_SQL)
            groups = [row[0] for row in cursor.fetchall()]
        # By the primary key, (group, event): each group's own few.
        done = InboxMessage.objects.filter(consumer_group__in=groups, event_id__in=names, outcome__in=HANDLED)
        handled, handled_more = first_of(done, "consumer_group", "event_id")
        # By outbox_parked_event.
        rows = ParkedMessage.objects.filter(event_id__in=names).defer("key", "value", "headers", "traceback")
        parked, parked_more = first_of(rows, "event_id")
        thread.parts.update(Name("consumed", str(one.pk)) for one in parked)
        entries = [_handled(events.get(one.event_id), one) for one in handled]
        entries += [_parked(events.get(one.event_id), one) for one in parked]
        return Told(entries, more=handled_more or parked_more)


def _handled(event: LivedEvent | None, one: InboxMessage) -> Entry:
    return Entry(
        kind="message",
        id=f"{one.consumer_group}/{one.event_id}",
        what=f"{event.type if event else 'A message'} at {one.consumer_group}",
        at=one.handled_at,
        state="handled" if one.outcome == "success" else one.outcome,
        tone="good",
        text=_place(one),
        about=_about(event),
    )


def _parked(event: LivedEvent | None, one: ParkedMessage) -> Entry:
    said = " ".join(filter(None, (one.code, one.message)))
    again = f"again at {one.next_attempt_at:%Y-%m-%d %H:%M:%S}" if one.next_attempt_at else ""
    return Entry(
        kind="parked",
        id=str(one.pk),
        what=f"{one.type or 'A message'} at {one.consumer_group}, not handled at once",
        at=one.created_at,
        ended_at=one.resolved_at,
        state=words(one.resolution or one.state).lower(),
        tone=TONES[one.state],
        attempts=one.attempts,
        text="; ".join(filter(None, (_place(one), said, again))),
        url=reverse("admin:outbox_parkedmessage_change", args=[one.pk]),
        about=_about(event),
    )


def _about(event: LivedEvent | None) -> list[Name]:
    return [Name(EVENT, str(event.id))] if event else []


def _place(one: Any) -> str:
    return f"{one.topic}, partition {one.partition}, offset {one.offset}"
