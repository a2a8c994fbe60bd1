from __future__ import annotations

from collections.abc import Iterator

import pytest

from outbox.consuming.handlers import HandlerTaken, groups, handler_for, handles, unregister
from outbox.consuming.messages import Message, Record, Unreadable, envelope_read, payload_read

pytestmark = pytest.mark.feature("A11")


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    unregister(group="tests")


def record(headers: dict[str, bytes | None] | None = None, **changes: object) -> Record:
    values = {"topic": "t.orders", "partition": 2, "offset": 7, "value": b"{}", **changes}
    return Record(headers=tuple((headers or {}).items()), **values)  # type: ignore[arg-type]


def test_it_finds_the_handler_of_a_type_before_the_one_of_all() -> None:
    @handles("orders", "order.placed", group="tests", versions=(1, 2))
    def placed(message: Message) -> None: ...

    @handles("orders", group="tests")
    def others(message: Message) -> None: ...

    first, rest = handler_for("tests", "orders", "order.placed"), handler_for("tests", "orders", "order.paid")

    assert first is not None and (first.function, first.versions) == (placed, {1, 2})
    assert rest is not None and rest.function is others
    assert handler_for("tests", "customers", "order.placed") is None
    assert handler_for("another", "orders", "order.placed") is None
    assert groups()["tests"] == {"orders"}


def test_it_refuses_a_second_handler_of_a_group_for_the_same() -> None:
    handles("orders", "order.placed", group="tests")(lambda message: None)

    with pytest.raises(HandlerTaken, match=r"order\.placed"):
        handles("orders", "order.placed", group="tests")(print)


def test_it_reads_the_envelope_from_the_headers() -> None:
    read = envelope_read(
        record(
            {
                "ce_id": b"e1",
                "ce_type": b"order.placed",
                "ce_subject": b"o-1",
                "aggregate_type": b"order",
                "sequence": b"3",
                "schema_version": b"2",
                "binary": b"\xff",
            }
        )
    )

    assert (read.id, read.type, read.aggregate, read.sequence) == ("e1", "order.placed", ("order", "o-1"), 3)
    assert (read.schema_version, read.keyed, read.fault) == (2, True, "")


@pytest.mark.parametrize(
    ("key", "aggregate_id", "keyed"), [(b"k", "k", True), (b"\xff\x00", "0xff00", True), (None, "t.orders/2/7", False)]
)
def test_it_takes_the_key_of_messages_from_elsewhere(key: bytes | None, aggregate_id: str, keyed: bool) -> None:
    read = envelope_read(record(key=key))

    assert (read.id, read.aggregate, read.sequence) == ("t.orders/2/7", ("", aggregate_id), None)
    assert (read.keyed, read.fault) == (keyed, "")


@pytest.mark.parametrize(
    "headers",
    [
        {"ce_id": b"\xff"},
        {"ce_id": b"x" * 256},
        {"ce_type": b"a\0b"},
        {"sequence": b"-1"},
        {"sequence": "٣".encode()},
        {"schema_version": b"1.5"},
        {"sequence": b"9" * 19},
    ],
)
def test_it_says_what_is_wrong_with_headers(headers: dict[str, bytes | None]) -> None:
    read = envelope_read(record(headers))

    assert next(iter(headers)) in read.fault
    assert read.id == "t.orders/2/7"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"{", "not_json"),
        (b"[]", "not_json"),
        (b"\xff", "not_json"),
        (b"", "not_json"),
        (None, "not_json"),
        (b'{"a": "' + b"x" * 200 + b'"}', "too_large"),
    ],
)
def test_it_says_what_is_wrong_with_a_value(value: bytes | None, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        payload_read(record(value=value), largest=100)

    assert caught.value.code == code
