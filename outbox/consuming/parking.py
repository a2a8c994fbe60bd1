"""Parking a message: written down with all of its bytes, so that its partition can go on."""

from __future__ import annotations

import base64
from datetime import timedelta

from django.db.models.functions import Now

from outbox.consuming.attempting import Fault
from outbox.consuming.messages import Envelope, Record
from outbox.models import ParkedMessage, ParkedState


def message_park(
    *,
    group: str,
    topic: str,
    record: Record,
    envelope: Envelope,
    fault: Fault | None = None,
    wait: float | None = None,
    blocks: bool = False,
    redriven: bool = False,
) -> None:
    """Write a message down, under the lock of its aggregate.

    Args:
        group: consumer group.
        topic: without its prefix.
        record: the message.
        envelope: what its headers say.
        fault: why it failed; None when it only waits behind another one of its aggregate.
        wait: seconds until its next attempt; None with a fault means that it is dead.
        blocks: whether its aggregate waits behind it if it is dead.
        redriven: whether a person sends it again.
    """
    parked = ParkedMessage(
        consumer_group=group,
        event_id=envelope.id,
        topic=topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        key=record.key,
        value=record.value,
        headers=[[name, None if text is None else base64.b64encode(text).decode()] for name, text in record.headers],
        type=envelope.type,
        aggregate_type=envelope.aggregate_type,
        aggregate_id=envelope.aggregate_id,
        state=ParkedState.WAITING,
        redriven=redriven,
    )
    if fault is not None:
        fault_note(parked, fault, wait=wait, blocks=blocks)
        parked.attempts = 1
    parked.save(force_insert=True)


def fault_note(parked: ParkedMessage, fault: Fault, *, wait: float | None, blocks: bool = False) -> None:
    """Put into a message why it failed and what comes next; the caller saves it.

    Args:
        parked: the message.
        fault: of the last attempt.
        wait: seconds until the next one; None makes it dead, with a dead letter due at once.
        blocks: whether its aggregate waits behind it if it is dead.
    """
    parked.error_class, parked.code = fault.error_class, fault.code
    parked.message, parked.traceback = fault.message, fault.traceback
    parked.fingerprint = fault.fingerprint(parked.consumer_group)
    if wait is None:
        parked.state, parked.blocks = ParkedState.DEAD, blocks
        parked.next_attempt_at, parked.dead_letter_due, parked.dead_lettered_at = None, Now(), None
    else:
        parked.state = ParkedState.RETRYING
        parked.next_attempt_at = Now() + timedelta(seconds=wait)


def record_of(parked: ParkedMessage, *, prefix: str) -> Record:
    """The message as it came."""
    return Record(
        topic=f"{prefix}.{parked.topic}",
        partition=parked.partition,
        offset=parked.offset,
        timestamp=parked.timestamp,
        key=None if parked.key is None else bytes(parked.key),
        value=None if parked.value is None else bytes(parked.value),
        headers=tuple((name, None if text is None else base64.b64decode(text)) for name, text in parked.headers),
    )
