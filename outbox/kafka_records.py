"""Events as Kafka records: what travels beside the payload, and how large all of it is."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from outbox.events import Event


def size_of(key: bytes, value: bytes, headers: Sequence[tuple[str, str | bytes | None]]) -> int:
    """Bytes of a record, a few of them for each header's length."""
    return len(key) + len(value) + sum(len(name) + len(str(text).encode()) + 8 for name, text in headers)


def headers_of(event: Event, source: str) -> list[tuple[str, str | bytes | None]]:
    """CloudEvents 1.0 attributes in Kafka's binary mode, and what else travels with an event."""
    headers: list[tuple[str, str | bytes | None]] = [
        ("ce_specversion", "1.0"),
        ("ce_id", event.uid_text),
        ("ce_source", source),
        ("ce_type", event.type),
        ("ce_time", event.created_text),
        ("ce_subject", event.aggregate_id),
        ("content-type", "application/json"),
        ("sequence", str(event.sequence)),
        ("schema_version", str(event.schema_version)),
        ("aggregate_type", event.aggregate_type),
    ]
    optional = ("origin", "correlation_id", "causation_id", "traceparent")
    headers += [(name, value) for name in optional if (value := getattr(event, name))]
    if event.headers_text != "{}":
        own = {name for name, _ in headers}
        headers += [(name, str(value)) for name, value in orjson.loads(event.headers_text).items() if name not in own]
    return headers
