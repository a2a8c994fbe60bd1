"""A Kafka of our own that needs neither Java nor disk: librdkafka's mock cluster.

It speaks the real protocol on 127.0.0.1 to any process: producing (idempotent too), consumer groups, committed offsets.
It creates topics by itself with four partitions, silently drops old records and forgets everything when it stops. So
it shows that things work; that nothing is lost is shown with a real broker (``kafka_broker.py``).

A new consumer group waits three seconds for further members, in Kafka and in the mock. Only librdkafka's own interface
(``rdkafka_mock.h``) can shorten that, so it is called where the library lies beside the Python package, as in its
wheels; elsewhere groups begin later.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

import confluent_kafka
from confluent_kafka import Producer

_LOG_LEVEL: Final = "3"


class KafkaMock:
    """A mock cluster inside this process, served by a thread of librdkafka's until ``stop``.

    Args:
        brokers: how many brokers it has, each on a free port of its own.
    """

    def __init__(self, *, brokers: int = 1) -> None:
        self.brokers = brokers
        self.bootstrap_servers = ""
        self._cluster: _Cluster | Producer | None = None

    def start(self) -> None:
        library = _library()
        if library is not None:
            self._cluster = _Cluster(library, self.brokers)
            self.bootstrap_servers = self._cluster.bootstrap_servers
            return
        self._cluster = Producer({"test.mock.num.brokers": self.brokers, "log_level": int(_LOG_LEVEL)})
        metadata = self._cluster.list_topics(timeout=10)
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())

    def stop(self) -> None:
        if isinstance(self._cluster, _Cluster):
            self._cluster.destroy()
        self._cluster = None


class _Cluster:
    """A mock cluster made through librdkafka's own interface, whose consumer groups begin at once."""

    def __init__(self, library: ctypes.CDLL, brokers: int) -> None:
        self._library = library
        error = ctypes.create_string_buffer(512)
        configuration = ctypes.c_void_p(library.rd_kafka_conf_new())
        library.rd_kafka_conf_set(configuration, b"log_level", _LOG_LEVEL.encode(), error, len(error))
        producer = 0
        self._client = ctypes.c_void_p(library.rd_kafka_new(producer, configuration, error, len(error)))
        if not self._client:
            raise RuntimeError(error.value.decode())
        self._mock = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(self._client, brokers))
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._mock, 0)
        self.bootstrap_servers: str = library.rd_kafka_mock_cluster_bootstraps(self._mock).decode()

    def destroy(self) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._mock)
        self._library.rd_kafka_destroy(self._client)


def _library() -> ctypes.CDLL | None:
    """The librdkafka that confluent_kafka has loaded; None when it does not lie beside it or is too old for this."""
    package = Path(confluent_kafka.__file__).parent
    found = [*package.with_name("confluent_kafka.libs").glob("librdkafka*"), *package.glob(".dylibs/librdkafka*")]
    if len(found) != 1:
        return None
    library = ctypes.CDLL(str(found[0]))
    if not hasattr(library, "rd_kafka_mock_group_initial_rebalance_delay_ms"):
        return None
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_conf_set", number, [pointer, text, text, text, ctypes.c_size_t]),
        ("rd_kafka_new", pointer, [number, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_cluster_destroy", None, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
