from __future__ import annotations

import pytest
from django.db import connection, transaction

from outbox.errors import InvalidEvent, PublishOutsideTransaction
from outbox.events import NewEvent
from outbox.models import AggregateSequence, StoredEvent, Unsequenced
from outbox.publishing import publish, publish_many

pytestmark = [pytest.mark.feature("D2")]


def new(aggregate: str = "a", **changes: object) -> NewEvent:
    values: dict[str, object] = {
        "topic": "customers",
        "type": "customer.updated",
        "aggregate_type": "customer",
        "aggregate_id": aggregate,
        "payload": {"n": 1},
    }
    return NewEvent(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.django_db(transaction=True)
def test_it_refuses_to_publish_outside_a_transaction() -> None:
    with pytest.raises(PublishOutsideTransaction):
        publish(new())

    assert not StoredEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.feature("A9")
def test_it_writes_nothing_when_the_transaction_is_rolled_back() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        publish(new())
        raise ZeroDivisionError

    assert not StoredEvent.objects.exists()
    assert not Unsequenced.objects.exists()
    assert not AggregateSequence.objects.exists()


@pytest.mark.django_db
@pytest.mark.feature("D6")
def test_it_numbers_the_events_of_an_aggregate_in_the_order_of_the_calls() -> None:
    with transaction.atomic():
        first = publish(new("a"))
        ids = publish_many([new("b"), new("a"), new("b"), new("a")])

    assert [first, *ids] == sorted([first, *ids])
    rows = StoredEvent.objects.order_by("id").values_list("aggregate_id", "sequence")
    assert list(rows) == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3)]
    assert list(Unsequenced.objects.order_by("id").values_list("id", flat=True)) == [first, *ids]


@pytest.mark.django_db
def test_it_keeps_the_payload_byte_by_byte() -> None:
    event = publish(new(payload={"z": 1.0, "a": "ü", "nested": {"b": None}}))

    assert StoredEvent.objects.get(id=event).payload == '{"z":1.0,"a":"ü","nested":{"b":null}}'


@pytest.mark.django_db
@pytest.mark.parametrize(
    "payload", [{"a": "\0"}, {"\0": 1}, {"a": [{"b": "x\0"}]}, {"a": "\ud800"}, {"a": object()}, {1: 2}]
)
def test_it_refuses_what_postgresql_cannot_keep(payload: dict[str, object]) -> None:
    with pytest.raises(InvalidEvent):
        publish(new(payload=payload))

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


@pytest.mark.django_db
def test_it_takes_a_backslash_before_a_harmless_u0000() -> None:
    event = publish(new(payload={"a": "\\u0000"}))

    assert StoredEvent.objects.get(id=event).payload == '{"a":"\\\\u0000"}'


@pytest.mark.parametrize(
    "changes",
    [
        {"topic": ""},
        {"topic": "a b"},
        {"type": "x" * 101},
        {"aggregate_id": ""},
        {"aggregate_id": "a\0"},
        {"origin": "\0"},
    ],
)
def test_it_refuses_names_that_are_not_plain(changes: dict[str, str]) -> None:
    with pytest.raises(InvalidEvent):
        new(**changes)


@pytest.mark.django_db
def test_it_writes_one_event_as_it_writes_many() -> None:
    event = new("a", headers={"k": "v"}, origin="api", correlation_id="c", causation_id="r", traceparent="00-1-2-01")
    publish(event)
    publish_many([event, event])

    rows = [list(row) for row in StoredEvent.objects.order_by("id").values_list()]

    fields = [field.attname for field in StoredEvent._meta.concrete_fields]
    same = [name not in ("id", "uid", "sequence", "created_at") for name in fields]
    plain = [[value for value, keep in zip(row, same, strict=True) if keep] for row in rows]
    assert plain[0] == plain[1] == plain[2]
    assert [row[fields.index("sequence")] for row in rows] == [1, 2, 3]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["aggregate", "origin", "causation_id"])
@pytest.mark.parametrize("count", [1, 2])
def test_it_refuses_half_a_character(name: str, count: int) -> None:
    with pytest.raises(InvalidEvent):
        publish_many([new(**{name: "\ud800"})] * count)
