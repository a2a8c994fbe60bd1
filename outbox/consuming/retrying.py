"""Retries: serves the parked messages that are due, one of each aggregate at a time, in their order."""

from __future__ import annotations

from typing import Any, Final

import structlog
from django.db import Error, connection
from django.db.models.functions import Now

from dbresilience.transactions import run_in_transaction
from outbox.conf import kafka_settings, outbox_settings
from outbox.consuming.attempting import WORKER_DIED, Fault, Halted, handler_of, message_attempt, wait_after
from outbox.consuming.handlers import Outcome
from outbox.consuming.inbox import aggregates_lock, sequences_advance
from outbox.consuming.messages import envelope_read
from outbox.consuming.parking import fault_note, record_of
from outbox.models import InboxMessage, ParkedMessage, ParkedResolution, ParkedState

log = structlog.get_logger(__name__)

# An attempt may take that long; then its worker counts as dead, and another one tries.
ATTEMPT_SECONDS: Final = 120.0
PAUSE_SECONDS: Final = 5.0

# Takes what is due, by outbox_parked_due (for that the moment is read once), and counts the attempt before it is made:
# a message that kills its worker runs out of attempts too. Committed on its own.
CLAIM_SQL: Final = """
UPDATE outbox_inbox_parked
   SET attempts = attempts + 1, updated_at = clock_timestamp(),
       next_attempt_at = clock_timestamp() + %(seconds)s * interval '1 second'
 WHERE id = (SELECT id FROM outbox_inbox_parked
              WHERE consumer_group = %(group)s AND topic = ANY (%(topics)s::text[]) AND state = 'retrying'
                AND next_attempt_at <= (SELECT clock_timestamp())
              ORDER BY next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, attempts
"""
# An attempt that was not made after all.
RETURN_SQL: Final = """
UPDATE outbox_inbox_parked
   SET attempts = attempts - 1, next_attempt_at = clock_timestamp() + %(seconds)s * interval '1 second'
 WHERE id = %(id)s AND attempts = %(attempts)s AND state = 'retrying'
"""
# The next one of an aggregate becomes the one that is retried, if none is, and no dead one blocks before it; by
# outbox_parked_queued.
NEXT_SQL: Final = """
UPDATE outbox_inbox_parked SET state = 'retrying', next_attempt_at = clock_timestamp(), updated_at = clock_timestamp()
 WHERE id = (SELECT id FROM outbox_inbox_parked
              WHERE aggregate_type = %(type)s AND aggregate_id = %(id)s AND topic = %(topic)s
                AND consumer_group = %(group)s AND (state IN ('retrying', 'waiting') OR blocks) ORDER BY id LIMIT 1)
   AND state = 'waiting'
   AND NOT EXISTS (SELECT 1 FROM outbox_inbox_parked
                    WHERE aggregate_type = %(type)s AND aggregate_id = %(id)s AND topic = %(topic)s
                      AND consumer_group = %(group)s AND state = 'retrying')
"""


class Retries:
    """Serves the due messages of one group."""

    def __init__(self, group: str, topics: list[str]) -> None:
        self._group = group
        self._topics = topics
        # Attempts that could not be made because the database went away; they are not counted against the message.
        self._unmade: list[tuple[int, int]] = []

    def serve_once(self, *, most: int = 100) -> list[Outcome]:
        """Serve what is due; what came of each.

        Raises:
            Halted: nothing can be handled now.
            django.db.Error: the database is in trouble.
        """
        self._give_back()
        outcomes: list[Outcome] = []
        while len(outcomes) < most:
            with connection.cursor() as cursor:
                values: dict[str, Any] = {"group": self._group, "topics": self._topics, "seconds": ATTEMPT_SECONDS}
                cursor.execute(CLAIM_SQL, values)
                claimed = cursor.fetchone()
            if claimed is None:
                break
            try:
                outcomes.append(self._serve(*claimed))
            except Halted:
                self._unmade.append(claimed)
                self._give_back()
                raise
            except Error:
                self._unmade.append(claimed)
                raise
        return outcomes

    def _give_back(self) -> None:
        while self._unmade:
            number, attempts = self._unmade[0]
            with connection.cursor() as cursor:
                cursor.execute(RETURN_SQL, {"id": number, "attempts": attempts, "seconds": PAUSE_SECONDS})
            self._unmade.pop(0)

    def _serve(self, number: int, attempts: int) -> Outcome:
        found = ParkedMessage.objects.only("topic", "aggregate_type", "aggregate_id").get(pk=number)
        key = (found.aggregate_type, found.aggregate_id)
        return run_in_transaction(lambda: self._settle(number, attempts, found.topic, key))

    def _settle(self, number: int, attempts: int, topic: str, key: tuple[str, str]) -> Outcome:
        last = aggregates_lock(group=self._group, topic=topic, keys=[key])[key]
        # Whoever claimed it meanwhile, or a person who decided, goes before.
        parked = (
            ParkedMessage.objects.select_for_update()
            .filter(pk=number, attempts=attempts, state=ParkedState.RETRYING)
            .first()
        )
        if parked is None:
            return Outcome.IGNORED
        record = record_of(parked, prefix=kafka_settings().topic_prefix)
        envelope = envelope_read(record)
        late = envelope.sequence is not None and envelope.sequence <= last
        handler = handler_of(self._group, topic, envelope)
        fault: Fault | None = None
        outcome = Outcome.SUCCESS
        if late and handler is not None and not handler.takes_late and not parked.redriven:
            outcome = Outcome.IGNORED
        elif attempts > outbox_settings().max_retries + 1:
            # Its last attempt never ended.
            fault, parked.attempts = WORKER_DIED, attempts - 1
        else:
            fault = message_attempt(
                group=self._group, topic=topic, record=record, envelope=envelope, attempt=attempts, late=late
            )
        if fault is not None:
            wait = wait_after(fault, attempts)
            outcome = Outcome.DLQ if wait is None else Outcome.RETRY
            fault_note(parked, fault, wait=wait, blocks=handler is not None and handler.blocks)
            parked.updated_at = Now()
            parked.save()
        else:
            _resolve(parked, outcome)
        if outcome is not Outcome.RETRY:
            InboxMessage.objects.filter(consumer_group=self._group, event_id=parked.event_id).update(outcome=outcome)
        if outcome is not Outcome.RETRY and not parked.blocks:
            if envelope.sequence is not None and not late:
                sequences_advance(group=self._group, topic=topic, sequences={key: envelope.sequence})
            queue_advance(group=self._group, topic=topic, key=key)
        log.info("message_retried", group=self._group, topic=topic, id=number, attempt=attempts, outcome=outcome.value)
        return outcome


def queue_advance(*, group: str, topic: str, key: tuple[str, str]) -> None:
    """Let the next parked message of an aggregate be tried, under the aggregate's lock."""
    with connection.cursor() as cursor:
        cursor.execute(NEXT_SQL, {"group": group, "topic": topic, "type": key[0], "id": key[1]})


def _resolve(parked: ParkedMessage, outcome: Outcome) -> None:
    if not parked.code:
        # It only waited, and there is nothing to tell of it.
        parked.delete()
        return
    parked.state, parked.next_attempt_at = ParkedState.RESOLVED, None
    parked.resolution = ParkedResolution.HANDLED if outcome is Outcome.SUCCESS else ParkedResolution.IGNORED
    parked.resolved_at = parked.updated_at = Now()
    parked.save()
