"""A consumed message as JSON."""

from __future__ import annotations

import base64
from typing import Any, Final

import orjson

from outbox.api.documents import instant
from outbox.consuming.queues import waiting_behind
from outbox.masking import payload_masked
from outbox.models import ParkedMessage

LARGEST_SHOWN: Final = 1_000_000


def consumed_document(parked: ParkedMessage, *, readable: bool = False, whole: bool = False) -> dict[str, Any]:
    """A message as lists tell of it.

    Args:
        parked: the message.
        readable: whether the payload may be read; otherwise its values are masked.
        whole: with payload, headers and what waits behind it.
    """
    found: dict[str, Any] = {
        "id": parked.pk,
        "group": parked.consumer_group,
        "topic": parked.topic,
        "partition": parked.partition,
        "offset": parked.offset,
        "event_id": parked.event_id,
        "event_type": parked.type,
        "aggregate_type": parked.aggregate_type,
        "aggregate_id": parked.aggregate_id,
        "status": parked.state,
        "resolution": parked.resolution or None,
        "blocks": parked.blocks,
        "attempts": parked.attempts,
        "next_retry_at": instant(parked.next_attempt_at),
        "error_class": parked.error_class or None,
        "error_code": parked.code or None,
        "error_message": parked.message or None,
        "fingerprint": parked.fingerprint or None,
        "redriven": parked.redriven,
        "created_at": instant(parked.created_at),
        "updated_at": instant(parked.updated_at),
        "dead_lettered_at": instant(parked.dead_lettered_at),
        "resolved_at": instant(parked.resolved_at),
        "resolved_by": parked.resolved_by or None,
        "resolved_reason": parked.resolved_reason or None,
    }
    if whole:
        found["waiting_behind"] = waiting_behind(parked)
        found["headers"] = {
            name: base64.b64decode(text or "").decode(errors="replace") for name, text in parked.headers
        }
        found["size"] = len(parked.value or b"")
        found["payload"] = _payload(bytes(parked.value or b""), readable=readable)
    return found


def _payload(value: bytes, *, readable: bool) -> Any:
    """The payload; None when it is no JSON, or too large to be shown."""
    if len(value) > LARGEST_SHOWN:
        return None
    try:
        payload = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return payload if readable else payload_masked(payload)
