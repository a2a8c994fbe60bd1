from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from zenskar.sandbox import kafka
from zenskar.sandbox.kafka import KafkaMock
from zenskar.sandbox.kafka_broker import KafkaBroker, KafkaUnavailable


@pytest.fixture
def mock() -> Iterator[KafkaMock]:
    server = KafkaMock()
    server.start()
    yield server
    server.stop()


def _produce(servers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True, "log_level": 0})
    for value in values:
        producer.produce(topic, value, key=b"k")
    assert producer.flush(30) == 0


def _consume(servers: str, topic: str, count: int) -> list[bytes | None]:
    settings = {"bootstrap.servers": servers, "group.id": "g", "auto.offset.reset": "earliest", "log_level": 0}
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    values: list[bytes | None] = []
    while len(values) < count:
        message = consumer.poll(30)
        assert message is not None, f"only {len(values)} of {count} records came"
        if message.error() is None:
            values.append(message.value())
    consumer.close()
    return values


@pytest.mark.feature("D14", "H7")
def test_the_mock_brings_records_in_order_through_the_protocol(mock: KafkaMock) -> None:
    _produce(mock.bootstrap_servers, "zenskar.things", [b"1", b"2", b"3"])

    assert _consume(mock.bootstrap_servers, "zenskar.things", 3) == [b"1", b"2", b"3"]


def test_the_mock_does_without_a_library_beside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_library", lambda: None)
    mock = KafkaMock(brokers=2)
    mock.start()

    _produce(mock.bootstrap_servers, "zenskar.things", [b"1"])

    assert mock.bootstrap_servers.count(":") == 2
    mock.stop()


def test_it_says_that_the_jars_are_missing(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka", jars=tmp_path / "nothing")

    with pytest.raises(KafkaUnavailable, match="make kafka"):
        broker.start()


@pytest.mark.kafka
@pytest.mark.feature("D14")
def test_a_real_broker_keeps_what_it_acknowledged_through_a_kill(tmp_path: Path) -> None:
    broker = KafkaBroker(tmp_path / "kafka")
    broker.start()
    _produce(broker.bootstrap_servers, "zenskar.things", [b"1", b"2"])

    broker.stop(with_signal=signal.SIGKILL)
    broker.start()
    kept = _consume(broker.bootstrap_servers, "zenskar.things", 2)
    broker.stop()

    assert kept == [b"1", b"2"]
