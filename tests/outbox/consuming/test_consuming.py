from __future__ import annotations

import secrets
from collections import Counter

import pytest
from django.conf import LazySettings

from outbox.consuming.attempting import Halted
from outbox.consuming.messages import Message
from outbox.errors import OutageError, PermanentError
from outbox.models import InboxMessage, ParkedMessage
from tests.outbox.consuming.conftest import Book, Kafka

pytestmark = [pytest.mark.feature("A11")]


def failing(*names: str, exc: Exception | None = None) -> object:
    return lambda message: (exc or RuntimeError("It said no.")) if message.aggregate_id in names else None


def test_it_handles_each_message_once_and_in_order(kafka: Kafka, book: Book, settings: LazySettings) -> None:
    # So long the mock of Kafka waits for the member that left.
    settings.KAFKA_SESSION_TIMEOUT = 3
    for sequence in (1, 2, 3):
        for name in ("a", "b"):
            kafka.send(name, sequence)
    kafka.send("a", 2)

    first = kafka.work()
    kafka.leave()
    kafka.send("a", 1)
    second = kafka.work()

    assert (first, second) == (7, 1)
    assert (book.of("a"), book.of("b")) == ([1, 2, 3], [1, 2, 3])
    assert InboxMessage.objects.filter(outcome="success").count() == 6


def test_it_retries_a_message_while_only_its_aggregate_waits(kafka: Kafka, book: Book) -> None:
    book.fails = failing("a")  # type: ignore[assignment]
    for sequence in (1, 2):
        kafka.send("a", sequence)
        kafka.send("b", sequence)
    kafka.work()
    parked = list(ParkedMessage.objects.order_by("id").values_list("state", "attempts"))
    held_back = book.lines
    kafka.send("a", 3)
    kafka.work()

    again = kafka.retry()
    book.fails = lambda message: None
    rest = kafka.retry()

    assert parked == [("retrying", 1), ("waiting", 0)]
    assert held_back == [("b", 1), ("b", 2)]
    assert again == ["retry"]
    assert rest == ["success"] * 3
    assert book.of("a") == [1, 2, 3]
    # A batch that fails is taken apart, and its messages are seen once more at the same attempt.
    attempts = list(dict.fromkeys((one.sequence, one.attempt) for one in book.seen if one.aggregate_id == "a"))
    assert attempts == [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]
    assert ParkedMessage.objects.get().resolution == "handled"
    assert set(InboxMessage.objects.values_list("outcome", flat=True)) == {"success"}


def test_it_declares_a_message_dead_after_its_retries_and_goes_on(
    kafka: Kafka, book: Book, settings: pytest.FixtureRequest
) -> None:
    settings.OUTBOX_MAX_RETRIES = 2  # type: ignore[attr-defined]
    book.fails = lambda message: RuntimeError("It said no.") if message.sequence == 1 else None
    kafka.send("a", 1)
    kafka.send("a", 2)
    kafka.work()

    outcomes = kafka.retry() + kafka.retry()

    dead = ParkedMessage.objects.get()
    assert outcomes == ["retry", "dlq", "success"]
    assert (dead.state, dead.attempts, dead.code, dead.error_class) == ("dead", 3, "RuntimeError", "retryable")
    assert book.of("a") == [2]


def test_it_writes_a_dead_letter_with_the_original_the_error_and_the_origin(kafka: Kafka, book: Book) -> None:
    book.fails = failing("a", exc=PermanentError("No such article.", code="no_article"))  # type: ignore[assignment]
    kafka.send("a", 1, headers={"traceparent": "00-1-2-01"})
    kafka.send("a", 2, headers={"ce_type": "order.unknown"})

    kafka.work()

    (letter,) = kafka.read("orders.dlq")
    headers = {name: value.decode() for name, value in letter.headers()}
    assert (letter.key(), letter.value()) == (b"a", b'{"n":1}')
    assert (headers["ce_id"], headers["ce_type"], headers["traceparent"]) == ("a-1", "order.placed", "00-1-2-01")
    assert (headers["dlq_topic"], headers["dlq_partition"], headers["dlq_offset"]) == (
        f"{kafka.prefix}.orders",
        "0",
        "0",
    )
    assert (headers["dlq_error_class"], headers["dlq_error_code"]) == ("permanent", "no_article")
    assert (headers["dlq_error_message"], headers["dlq_group"]) == ("No such article.", kafka.group)
    assert ParkedMessage.objects.get().dead_lettered_at is not None


@pytest.mark.feature("H2")
def test_no_message_stops_its_partition_whatever_it_is(kafka: Kafka, book: Book) -> None:
    kafka.send("a", 1, value=b"{not json")
    kafka.send("a", 2, value=b"[1]")
    kafka.send("a", 3, headers={"schema_version": "99"})
    kafka.send("a", 4, value=b'{"x":"' + secrets.token_hex(1_000_000).encode() + b'"}')
    kafka.send("a", 5, headers={"sequence": "five"})
    kafka.send("a", 6, headers={"ce_type": None})
    kafka.send("a", 7, value=b'{"nul": "\\u0000"}')
    kafka.send(None, None, value=b"\xff\x00", headers={"ce_id": None, "ce_subject": None, "aggregate_type": None})
    kafka.send("a", 8, headers={"ce_type": "order.unknown"})
    kafka.send("a", 7)
    kafka.send("b", 1)

    handled = kafka.work()

    codes = Counter(ParkedMessage.objects.values_list("state", "code"))
    assert handled == 11
    assert codes == {
        ("dead", "not_json"): 3,
        ("dead", "unknown_schema_version"): 1,
        ("dead", "too_large"): 1,
        ("dead", "bad_header"): 1,
        ("dead", "no_handler"): 1,
    }
    assert book.lines == [("a", 7), ("b", 1)]
    assert len(kafka.read("orders.dlq")) == 7
    assert ParkedMessage.objects.get(code="too_large").dead_lettered_at is not None


def test_it_passes_a_message_by_whose_successor_was_handled(kafka: Kafka, book: Book) -> None:
    kafka.send("a", 2)
    kafka.send("a", 1)

    kafka.work()

    assert book.of("a") == [2]
    assert dict(InboxMessage.objects.values_list("event_id", "outcome")) == {"a-2": "success", "a-1": "ignored"}


def test_it_blames_nobody_when_nothing_can_be_handled(kafka: Kafka, book: Book) -> None:
    book.fails = lambda message: OutageError("The warehouse is away.") if message.aggregate_id == "b" else None
    kafka.send("a", 1)
    kafka.send("b", 1)
    worker = kafka.worker()

    with pytest.raises(Halted):
        worker.run_until_idle()
    before = book.lines
    book.fails = lambda message: None
    worker.run_until_idle()

    assert before == [("a", 1)]
    assert book.lines == [("a", 1), ("b", 1)]
    assert not ParkedMessage.objects.exists()


def test_what_was_fetched_and_not_handled_is_left_to_the_next_worker(kafka: Kafka, book: Book) -> None:
    book.fails = lambda message: OutageError("The warehouse is away.") if message.aggregate_id == "c" else None
    for key in "abcd":
        kafka.send(key, 1)

    with pytest.raises(Halted):
        kafka.work()
    # As it leaves it commits how far it came, and no further.
    kafka.leave()
    book.fails = lambda message: None
    kafka.work()

    assert book.lines == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]


def test_a_constraint_that_speaks_at_commit_blames_its_own_message(kafka: Kafka, book: Book) -> None:
    def twice(message: Message) -> Exception | None:
        if message.aggregate_id == "b":
            Book.write(Book(), message)
        return None

    book.fails = twice
    for name in ("a", "b", "c"):
        kafka.send(name, 1)

    kafka.work()

    assert book.lines == [("a", 1), ("c", 1)]
    assert ParkedMessage.objects.get().code == "IntegrityError"
