"""A handler may say that a dead message holds its aggregate back, until a person has decided about it."""

from __future__ import annotations

import re

import pytest
from django.db import IntegrityError, connection, transaction

from outbox.consuming.handlers import handles, unregister
from outbox.consuming.inbox import QUEUED_SQL, SEEN_SQL
from outbox.consuming.redriving import consumed_discard, consumed_retry
from outbox.consuming.retrying import Retries
from outbox.errors import PermanentError
from outbox.models import InboxAggregate, ParkedMessage
from outbox.policies import DeadPolicy
from tests.outbox.consuming.conftest import Book, Kafka
from tests.outbox.consuming.test_redriving import handle, record

pytestmark = [pytest.mark.feature("A11", "H2")]


@pytest.fixture
def blocking(kafka: Kafka, book: Book) -> Book:
    """The handler of orders, with the policy that blocks; it refuses the second message of ``a``."""
    unregister(group=kafka.group)
    handles("orders", "order.placed", group=kafka.group, dead_policy=DeadPolicy.BLOCK)(book.write)
    book.fails = lambda message: PermanentError("No.") if (message.aggregate_id, message.sequence) == ("a", 2) else None
    handle(kafka, record(kafka, "a", 1), record(kafka, "a", 2), record(kafka, "a", 3), record(kafka, "b", 1))
    handle(kafka, record(kafka, "a", 4), record(kafka, "b", 2))
    return book


def states(kafka: Kafka) -> list[tuple[str, str]]:
    rows = ParkedMessage.objects.filter(consumer_group=kafka.group).order_by("id")
    return list(rows.values_list("event_id", "state"))


def test_later_messages_of_its_aggregate_wait_and_all_others_go_on(kafka: Kafka, blocking: Book) -> None:
    served = Retries(kafka.group, ["orders"]).serve_once()

    assert served == []
    assert (blocking.of("a"), blocking.of("b")) == ([1], [1, 2])
    assert states(kafka) == [("a-2", "dead"), ("a-3", "waiting"), ("a-4", "waiting")]


def test_sent_again_it_is_handled_before_them_and_is_not_late(kafka: Kafka, blocking: Book) -> None:
    blocking.fails = lambda message: None
    consumed_retry(ids=[ParkedMessage.objects.get(state="dead").pk], actor="user:ann", reason="stocked")

    served = Retries(kafka.group, ["orders"]).serve_once()
    handle(kafka, record(kafka, "a", 5))

    assert [str(one) for one in served] == ["success"] * 3
    assert blocking.of("a") == [1, 2, 3, 4, 5]
    assert not any(message.late for message in blocking.seen)


def test_dead_again_it_holds_them_back_again(kafka: Kafka, blocking: Book) -> None:
    consumed_retry(ids=[ParkedMessage.objects.get(state="dead").pk], actor="user:ann", reason="again")

    served = Retries(kafka.group, ["orders"]).serve_once()

    assert [str(one) for one in served] == ["dlq"]
    assert states(kafka) == [("a-2", "dead"), ("a-3", "waiting"), ("a-4", "waiting")]
    assert blocking.of("a") == [1]


def test_given_up_it_lets_them_go_on_and_is_known_when_it_comes_again(kafka: Kafka, blocking: Book) -> None:
    (dead,) = ParkedMessage.objects.filter(state="dead")
    consumed_discard(ids=[dead.pk], actor="user:ann", reason="old")
    passed = InboxAggregate.objects.get(aggregate_id="a").sequence

    served = Retries(kafka.group, ["orders"]).serve_once()

    assert [str(one) for one in served] == ["success"] * 2
    assert blocking.of("a") == [1, 3, 4]
    assert passed == 2
    dead.refresh_from_db()
    assert (dead.state, dead.blocks, dead.resolution) == ("resolved", False, "discarded")


def test_one_that_ran_out_of_retries_holds_them_back_too(
    kafka: Kafka, book: Book, settings: pytest.FixtureRequest
) -> None:
    settings.OUTBOX_MAX_RETRIES = 1  # type: ignore[attr-defined]
    unregister(group=kafka.group)
    handles("orders", "order.placed", group=kafka.group, dead_policy=DeadPolicy.BLOCK)(book.write)
    book.fails = lambda message: RuntimeError("no") if message.sequence == 1 else None
    handle(kafka, record(kafka, "a", 1), record(kafka, "a", 2))

    served = kafka.retry()
    handle(kafka, record(kafka, "a", 3))

    assert served == ["dlq"]
    assert states(kafka) == [("a-1", "dead"), ("a-2", "waiting"), ("a-3", "waiting")]


def test_the_database_admits_no_message_that_blocks_and_is_not_dead(kafka: Kafka, blocking: Book) -> None:
    with pytest.raises(IntegrityError, match="outbox_parked_blocks"), transaction.atomic():
        ParkedMessage.objects.filter(state="waiting").update(blocks=True)


def test_the_queue_of_an_aggregate_is_read_by_its_index(kafka: Kafka, blocking: Book) -> None:
    values = {"group": kafka.group, "topic": "orders", "types": ["order"], "ids": ["a"]}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {QUEUED_SQL}", values)
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert "outbox_parked_queued" in plan


def test_what_was_handled_is_looked_up_one_by_one_also_before_the_inbox_was_analysed(kafka: Kafka) -> None:
    values = {"group": kafka.group, "events": [f"event-{number}" for number in range(100)]}
    plans = []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            'INSERT INTO outbox_inbox (consumer_group, event_id, topic, partition, "offset", outcome)'
            " SELECT %s, 'event-' || n, 'orders', 0, n, 'handled' FROM generate_series(1, 20000) n",
            [kafka.group],
        )
        for _ in range(2):
            cursor.execute(f"EXPLAIN {SEEN_SQL}", values)
            plans.append("\n".join(line for (line,) in cursor.fetchall()))
            cursor.execute("ANALYZE outbox_inbox")

    for plan in plans:
        assert re.search(r"Index Cond: .*event_id", plan), plan
