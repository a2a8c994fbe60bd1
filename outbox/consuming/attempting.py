"""One attempt to handle one message, in a savepoint."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from random import uniform
from typing import Final

import structlog
from django.db import connection, transaction

from dbresilience.error_texts import error_text, traceback_text
from operations.correlation import work_bound
from outbox.conf import kafka_settings, outbox_settings
from outbox.consuming.handlers import ANY, Handler, handler_for
from outbox.consuming.messages import Envelope, Message, Record, Unreadable, payload_read
from outbox.errors import DeliveryError, ErrorClass
from outbox.failures import HALTING, MESSAGE_LENGTH, TRACEBACK_LENGTH, fingerprint_of, is_database_trouble, plain

log = structlog.get_logger(__name__)

# A deferred constraint would speak up at COMMIT, when nobody can tell whose fault it is; the next handler gets its
# transaction as it expects it.
CONSTRAINTS_SQL: Final = "SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED"


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong with a message; the attributes are those of ``outbox.subscribers.Failure``."""

    error_class: ErrorClass
    code: str
    message: str
    traceback: str = ""

    def fingerprint(self, group: str) -> str:
        """The same for faults of a group that differ only in ids, numbers and quoted values."""
        return fingerprint_of(f"consumer {group}", self.error_class, self.code, self.message)


WORKER_DIED: Final = Fault(ErrorClass.CRASH, "worker_died", "The worker died while it handled this message.")


class Halted(Exception):
    """Nothing can be handled now, and no message is to blame."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


def handler_of(group: str, topic: str, envelope: Envelope) -> Handler | None:
    """Who handles the message; None when nobody of the group does."""
    return handler_for(group, topic, envelope.type or ANY)


def message_attempt(
    *, group: str, topic: str, record: Record, envelope: Envelope, attempt: int, late: bool, alone: bool = True
) -> Fault | None:
    """Handle one message in the current transaction, in a savepoint.

    Args:
        group: consumer group.
        topic: without its prefix.
        record: the message.
        envelope: what its headers say.
        attempt: the how manieth.
        late: whether a later one of its aggregate was handled.
        alone: False goes without the savepoint, and leaves deferred constraints to the caller: what its handler
            raises is raised, and all is to be rolled back.

    Returns:
        What went wrong; None is success.

    Raises:
        Halted: nothing can be handled now.
        django.db.Error: the database is in trouble; the transaction is to be run again.
    """
    try:
        handler, message = _message(group, topic, record, envelope)
        message = replace(message, attempt=attempt, late=late)
        with (
            work_bound(
                f"handle {topic}",
                correlation=message.correlation_id,
                traceparent=message.traceparent,
                kind="consumer",
                attributes={"messaging.destination.name": topic, "messaging.consumer.group.name": group},
            ),
            transaction.atomic() if alone else nullcontext(),
        ):
            handler.function(message)
            if alone:
                constraints_check()
            log.info(
                "message_handled",
                group=group,
                topic=topic,
                partition=record.partition,
                offset=record.offset,
                id=message.id,
                type=message.type,
                attempt=attempt,
            )
    except Exception as exc:
        # Unreadable is what was found before the handler began.
        if is_database_trouble(exc) or not (alone or isinstance(exc, Unreadable)):
            raise
        fault = fault_of(exc)
        if fault.error_class in HALTING:
            raise Halted(fault) from exc
        return fault
    return None


def constraints_check() -> None:
    """Let deferred constraints speak up now."""
    with connection.cursor() as cursor:
        cursor.execute(CONSTRAINTS_SQL)


def fault_of(exc: Exception) -> Fault:
    """What an exception means; one that says nothing of itself may be gone next time."""
    known = isinstance(exc, DeliveryError)
    return Fault(
        error_class=exc.error_class if isinstance(exc, DeliveryError) else ErrorClass.RETRYABLE,
        code=plain(exc.code if isinstance(exc, DeliveryError) else type(exc).__name__)[:100],
        message=plain(error_text(exc))[:MESSAGE_LENGTH],
        traceback="" if known else plain(traceback_text(exc))[-TRACEBACK_LENGTH:],
    )


def wait_after(fault: Fault, attempts: int) -> float | None:
    """Seconds until the next attempt, with full jitter; None when there is none.

    Args:
        fault: of the last attempt.
        attempts: made so far, the first one included.
    """
    if fault.error_class is ErrorClass.PERMANENT or attempts > outbox_settings().max_retries:
        return None
    return uniform(0.0, min(2.0 ** (attempts - 1), 3600.0))  # noqa: S311 - full jitter, no secret


def _message(group: str, topic: str, record: Record, envelope: Envelope) -> tuple[Handler, Message]:
    if envelope.fault:
        raise Unreadable(f"The {envelope.fault}.", code="bad_header")
    handler = handler_of(group, topic, envelope)
    if handler is None:
        raise Unreadable("It has no type (ce_type), and no handler takes all.", code="no_handler")
    payload = payload_read(record, largest=kafka_settings().message_max_bytes)
    if envelope.schema_version not in handler.versions:
        raise Unreadable(
            f"Schema version {envelope.schema_version} of {envelope.type or 'a message'} is not known to its handler.",
            code="unknown_schema_version",
        )
    return handler, Message(
        group=group,
        topic=topic,
        partition=record.partition,
        offset=record.offset,
        id=envelope.id,
        type=envelope.type,
        aggregate_type=envelope.aggregate_type,
        aggregate_id=envelope.aggregate_id,
        sequence=envelope.sequence,
        schema_version=envelope.schema_version,
        payload=payload,
        headers=envelope.headers,
    )
