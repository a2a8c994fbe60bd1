"""Messages: what Kafka hands over, as it came and as handlers read it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from outbox.errors import PermanentError
from outbox.events import NAME_LENGTH

Headers = Sequence[tuple[str, bytes | None]]

_WHOLE: Final = re.compile(r"[0-9]{1,18}\Z")


class Unreadable(PermanentError):
    """The message is not what its topic holds."""


class Consumed(Protocol):
    """A message as the client library has it."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...
    def headers(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A message as it came, whatever is in it.

    Attributes:
        topic: with its prefix, as the broker knows it.
        partition, offset: its place there.
        timestamp: milliseconds since 1970, of its producer or broker; 0 if there is none.
        key, value: bytes, or None.
        headers: in their order; a name may come twice.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()

    @classmethod
    def of(cls, message: Consumed) -> Record:
        """The record of a message of the client library."""
        kind, moment = message.timestamp()
        return cls(
            topic=message.topic() or "",
            partition=message.partition() or 0,
            offset=message.offset() or 0,
            timestamp=moment if kind else 0,
            key=message.key(),
            value=message.value(),
            headers=tuple(message.headers() or ()),
        )

    @property
    def place(self) -> str:
        """Its place as a name: unique for ever in one cluster."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as handlers read it.

    Attributes:
        group: consumer group that handles it.
        topic: without the prefix, as in ``customers``.
        partition, offset: its place in Kafka.
        id: the event's id (``ce_id``), else its place; the same whenever it comes again.
        type: what happened, as in ``customer.updated``.
        aggregate_type, aggregate_id: what it is about; of messages that say nothing of it, nothing and the key.
        sequence: its number within its aggregate, or None.
        schema_version: version of the payload's shape.
        payload: the JSON object.
        headers: all headers that are text.
        attempt: 1, or more when it failed before.
        late: whether a later message of its aggregate was handled before it; only handlers that take late ones see
            such a message, and every handler one that a person sent again.
    """

    group: str
    topic: str
    partition: int
    offset: int
    id: str
    type: str
    aggregate_type: str = ""
    aggregate_id: str = ""
    sequence: int | None = None
    schema_version: int = 1
    payload: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    late: bool = False

    @property
    def origin(self) -> str:
        """What caused the change, as its publisher said."""
        return self.headers.get("origin", "")

    @property
    def correlation_id(self) -> str:
        """Id of the work that the event came from."""
        return self.headers.get("correlation_id", "")

    @property
    def traceparent(self) -> str:
        """W3C trace context of that work."""
        return self.headers.get("traceparent", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What the headers of a record say; nothing of it was checked against a handler, and the value was not read.

    Attributes:
        keyed: whether it has an aggregate or a key, so that its order matters.
        fault: why the headers cannot be used; then the id is its place, and all else is empty.
    """

    id: str
    type: str = ""
    aggregate_type: str = ""
    aggregate_id: str = ""
    sequence: int | None = None
    schema_version: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    keyed: bool = False
    fault: str = ""

    @property
    def aggregate(self) -> tuple[str, str]:
        return self.aggregate_type, self.aggregate_id


def envelope_read(record: Record) -> Envelope:
    """What the headers and the key say; never raises."""
    headers: dict[str, str] = {}
    for name, value in record.headers:
        try:
            headers[name] = (value or b"").decode()
        except UnicodeDecodeError:
            # Only those that we read have to be text.
            headers.pop(name, None)
            if name in _READ:
                return Envelope(id=record.place, aggregate_id=record.place, fault=f"header {name} is no text")
    for name, longest in _READ.items():
        text = headers.get(name, "")
        if len(text) > longest or "\0" in text:
            return Envelope(
                id=record.place,
                aggregate_id=record.place,
                fault=f"header {name} is longer than {longest} characters, or holds NUL",
            )
    numbers: dict[str, int | None] = {}
    for name in ("sequence", "schema_version"):
        text = headers.get(name, "")
        if text and not _WHOLE.match(text):
            return Envelope(id=record.place, aggregate_id=record.place, fault=f"header {name} is no whole number")
        numbers[name] = int(text) if text else None
    aggregate_id = headers.get("ce_subject", "") if headers.get("aggregate_type") else _key_text(record)
    return Envelope(
        id=headers.get("ce_id") or record.place,
        type=headers.get("ce_type", ""),
        aggregate_type=headers.get("aggregate_type", "") if aggregate_id else "",
        aggregate_id=aggregate_id or record.place,
        sequence=numbers["sequence"] if headers.get("aggregate_type") and aggregate_id else None,
        schema_version=1 if numbers["schema_version"] is None else numbers["schema_version"],
        headers=headers,
        keyed=bool(aggregate_id),
    )


def payload_read(record: Record, *, largest: int) -> dict[str, Any]:
    """The JSON object in the value.

    Args:
        record: which.
        largest: bytes that a record may have.

    Raises:
        Unreadable: it is larger, or no JSON object.
    """
    if record.size > largest:
        raise Unreadable(
            f"The message has {record.size} bytes, more than {largest} (KAFKA_MESSAGE_MAX_BYTES).", code="too_large"
        )
    try:
        payload = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError as exc:
        raise Unreadable("The value is no JSON.", code="not_json") from exc
    if not isinstance(payload, dict):
        raise Unreadable("The value is JSON, but no object.", code="not_json")
    return payload


# What is read, and how long it may be.
_READ: Final = {
    "ce_id": NAME_LENGTH,
    "ce_type": 100,
    "ce_subject": NAME_LENGTH,
    "aggregate_type": 100,
    "sequence": 18,
    "schema_version": 18,
}


def _key_text(record: Record) -> str:
    key = record.key or b""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        text = "\0"
    return text if "\0" not in text and len(text) <= NAME_LENGTH else "0x" + key[:100].hex()
