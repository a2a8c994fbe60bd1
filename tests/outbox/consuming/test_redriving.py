from __future__ import annotations

import json
import time
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from prometheus_client import generate_latest

from operations.long_actions.planning import operation_create
from operations.long_actions.runner import operations_run_once
from operations.long_actions.steering import operation_steer
from operations.metrics import SCRAPED
from operations.models import AuditEntry
from operations.troubles.services import troubles_retry
from outbox.consuming.inbox import messages_handle
from outbox.consuming.messages import Record
from outbox.consuming.redriving import consumed_discard
from outbox.consuming.retrying import Retries
from outbox.consuming.troubles import ConsumedDeadLetters
from outbox.errors import PermanentError
from outbox.models import InboxMessage, ParkedMessage
from outbox.pruning import rows_prune
from tests.operations.conftest import api, issued
from tests.outbox.consuming.conftest import Book, Kafka

__all__ = ["api", "issued"]
pytestmark = [pytest.mark.feature("A11", "A12")]


def record(kafka: Kafka, name: str, sequence: int) -> Record:
    headers = {
        "ce_id": f"{name}-{sequence}",
        "ce_type": "order.placed",
        "ce_subject": name,
        "aggregate_type": "order",
        "sequence": str(sequence),
    }
    return Record(
        topic=f"{kafka.prefix}.orders",
        partition=0,
        offset=sequence,
        key=name.encode(),
        value=b"{}",
        headers=tuple((key, text.encode()) for key, text in headers.items()),
    )


def handle(kafka: Kafka, *records: Record) -> None:
    messages_handle(group=kafka.group, topic="orders", worker="w", records=records)


@pytest.fixture
def dead(kafka: Kafka, book: Book) -> list[ParkedMessage]:
    """Three dead messages of two aggregates; what came after them was handled."""
    book.fails = lambda message: PermanentError("No such article.") if (message.sequence or 0) < 3 else None
    handle(kafka, record(kafka, "a", 1), record(kafka, "a", 2), record(kafka, "a", 3), record(kafka, "b", 1))
    book.fails = lambda message: None
    return list(ParkedMessage.objects.order_by("id"))


def test_it_shows_dead_letters_among_the_troubles_and_sends_a_kind_again_in_order(
    kafka: Kafka, book: Book, dead: list[ParkedMessage]
) -> None:
    source = ConsumedDeadLetters()
    (group,) = source.groups()
    listed = source.troubles(fingerprint=group.fingerprint, limit=2)
    rest = source.troubles(after=listed[-1].id)

    retried = troubles_retry(source=source, actor="user:ann", reason="stocked", fingerprint=group.fingerprint)
    served = Retries(kafka.group, ["orders"]).serve_once()

    assert (group.code, group.count) == ("PermanentError", 3)
    assert [one.id for one in (*listed, *rest)] == [str(one.pk) for one in reversed(dead)]
    assert (len(retried), len(served)) == (3, 3)
    assert book.of("a") == [3, 1, 2]
    assert [message.late for message in book.seen[-3:] if message.aggregate_id == "a"] == [True, True]
    assert source.counts() == {"dead": 0}
    assert AuditEntry.objects.filter(action="consumed.retried", actor="user:ann").exists()
    assert set(InboxMessage.objects.values_list("outcome", flat=True)) == {"success"}


@pytest.mark.feature("D10")
def test_it_sends_all_again_as_an_operation(kafka: Kafka, book: Book, dead: list[ParkedMessage]) -> None:
    book.fails = lambda message: PermanentError("Still none.") if message.aggregate_id == "b" else None
    operation = operation_create(
        kind="outbox.redrive", filter={"group": kafka.group}, reason="stocked", actor="user:ann"
    )
    operation_steer(verb="start", operation_id=operation.pk, actor="user:ann")
    operation.refresh_from_db()
    ends = time.monotonic() + 60
    while operation.state == "running" and time.monotonic() < ends:
        operations_run_once()
        Retries(kafka.group, ["orders"]).serve_once()
        operation.refresh_from_db()

    assert (operation.state, operation.eligible) == ("completed", 3)
    assert (operation.succeeded, operation.failed) == (2, 1)
    assert book.of("a") == [3, 1, 2]
    assert ParkedMessage.objects.get(state="dead").aggregate_id == "b"


@pytest.mark.parametrize("given", [{"x": "1"}, {"group": 3}, {"topic": ""}, {"upto": -1}, {"upto": True}])
def test_it_refuses_filters_that_mean_nothing(given: dict[str, object], api: Client, db: None) -> None:
    body = {"kind": "outbox.redrive", "filter": given, "dry_run": True}

    answer = api.post("/api/v1/admin/operations/", json.dumps(body), content_type="application/json")

    assert answer.status_code == 400


def test_the_command_takes_a_topic_with_and_without_the_prefix_and_says_what_there_is(
    kafka: Kafka, book: Book, dead: list[ParkedMessage]
) -> None:
    out, err = StringIO(), StringIO()

    for topic in ("orders", f"{kafka.prefix}.orders", f"{kafka.prefix}.orders.dlq"):
        call_command("kafka_redrive", group=kafka.group, topic=topic, stdout=out)
    with pytest.raises(SystemExit) as nothing:
        call_command("kafka_redrive", group=kafka.group, topic="order", stdout=out, stderr=err)

    assert out.getvalue().splitlines() == ["3 would be retried. Add --apply."] * 3 + ["Nothing of that is dead."]
    assert nothing.value.code == 1
    assert f"Dead messages by group and topic: {kafka.group} orders: 3." in err.getvalue()


def test_the_command_retries_gives_up_and_does_nothing_by_default(
    kafka: Kafka, book: Book, dead: list[ParkedMessage]
) -> None:
    out = StringIO()
    call_command("kafka_redrive", group=kafka.group, stdout=out)
    with pytest.raises(CommandError, match="reason"):
        call_command("kafka_redrive", str(dead[0].pk), group=kafka.group, discard=True, apply=True)
    call_command(
        "kafka_redrive", str(dead[0].pk), group=kafka.group, discard=True, reason="old", apply=True, stdout=out
    )
    call_command("kafka_redrive", group=kafka.group, apply=True, stdout=out)
    Retries(kafka.group, ["orders"]).serve_once()
    with pytest.raises(SystemExit) as nothing:
        call_command("kafka_redrive", group=kafka.group, apply=True, stdout=out)

    assert "3 would be retried" in out.getvalue()
    assert nothing.value.code == 1
    assert sorted(book.lines) == [("a", 2), ("a", 3), ("b", 1)]
    dead[0].refresh_from_db()
    assert (dead[0].resolution, dead[0].resolved_reason) == ("discarded", "old")


def test_it_redrives_the_topic_of_dead_letters_even_of_messages_that_are_forgotten(kafka: Kafka, book: Book) -> None:
    book.fails = lambda message: PermanentError("No such article.")
    for name in ("a", "b", "c"):
        kafka.send(name, 1)
    kafka.work()
    given_up = ParkedMessage.objects.get(aggregate_id="c")
    consumed_discard(ids=[given_up.pk], actor="user:ann", reason="old")
    ParkedMessage.objects.filter(aggregate_id="b").delete()
    InboxMessage.objects.filter(event_id="b-1").delete()
    book.fails = lambda message: None
    out = StringIO()

    call_command("kafka_redrive", group=kafka.group, topic="orders", from_kafka=True, apply=True, json=True, stdout=out)
    served = Retries(kafka.group, ["orders"]).serve_once()
    kafka.send("b", 1)
    kafka.work()
    with pytest.raises(CommandError) as mistyped:
        call_command("kafka_redrive", group=kafka.group, topic="order", from_kafka=True)

    assert f"has no topic {kafka.prefix}.order.dlq" in str(mistyped.value)
    assert f"{kafka.prefix}.orders.dlq" in str(mistyped.value)
    assert json.loads(out.getvalue()) == {"retried": 1, "restored": 1, "handled": 1, "applied": True}
    assert len(served) == 2
    assert sorted(book.lines) == [("a", 1), ("b", 1)]


@pytest.mark.feature("D7")
def test_it_measures_lag_and_what_is_parked(kafka: Kafka, book: Book, dead: list[ParkedMessage]) -> None:
    kafka.send("z", 1)
    kafka.work()

    page = generate_latest(SCRAPED).decode()

    of_group = f'group="{kafka.group}"'
    assert f'zenskar_kafka_consumer_lag_messages{{{of_group},partition="0",topic="orders"}} 0.0' in page
    assert f'zenskar_kafka_consumer_parked_messages{{{of_group},state="dead",topic="orders"}} 3.0' in page
    assert "zenskar_kafka_consumer_report_age_seconds" in page


def test_it_forgets_what_was_handled_long_ago_and_nothing_that_is_open(
    kafka: Kafka, book: Book, dead: list[ParkedMessage]
) -> None:
    consumed_discard(ids=[dead[0].pk], actor="user:ann", reason="old")
    ParkedMessage.objects.filter(pk=dead[0].pk).update(resolved_at="2000-01-01T00:00Z")
    InboxMessage.objects.update(handled_at="2000-01-01T00:00Z")

    removed = rows_prune()

    assert (removed["inbox"], removed["consumed"]) == (2, 1)
    assert set(InboxMessage.objects.values_list("event_id", flat=True)) == {"a-2", "b-1"}


def test_the_console_shows_a_dead_letter_masked(
    kafka: Kafka, book: Book, dead: list[ParkedMessage], admin_client: Client
) -> None:
    listed = admin_client.get(reverse("admin:outbox_parkedmessage_changelist"))
    page = admin_client.get(reverse("admin:outbox_parkedmessage_change", args=[dead[0].pk]))

    assert (listed.status_code, page.status_code) == (200, 200)
    assert b"No such article." in page.content
