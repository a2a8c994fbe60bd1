"""A message's correlation id and trace go on in what its handler does."""

from __future__ import annotations

import pytest

from operations.correlation import correlation_id
from operations.tracing import traceparent
from outbox.consuming.messages import Message
from outbox.models import StoredEvent
from outbox.publishing import publish
from tests.capturing import captured
from tests.outbox.conftest import new
from tests.outbox.consuming.conftest import Book, Kafka

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.feature("A13")
def test_a_handler_goes_on_with_the_cause_of_its_message(kafka: Kafka, book: Book) -> None:
    seen: list[tuple[str, str]] = []

    def publish_more(message: Message) -> None:
        seen.append((correlation_id(), traceparent()))
        publish(new("after"))

    book.fails = publish_more  # type: ignore[assignment]
    kafka.send("a", 1, headers={"correlation_id": "order-22", "traceparent": TRACEPARENT})
    kafka.send("b", 1, headers={"correlation_id": "no good!", "traceparent": "00-1-2-01"})

    with captured() as capture:
        kafka.work()

    first, second = StoredEvent.objects.order_by("id")
    assert (first.correlation_id, first.traceparent) == seen[0] == ("order-22", TRACEPARENT)
    # What came with the other one is none: its handler has ids of its own.
    assert (second.correlation_id, second.traceparent) == seen[1]
    assert len(second.correlation_id) == 36
    assert len(second.traceparent) == 55
    handled = [line for line in capture.lines() if line["event"] == "message_handled"]
    assert [line["correlation_id"] for line in handled] == ["order-22", second.correlation_id]
    assert handled[0]["trace_id"] in TRACEPARENT
