"""Settings of the consumer, with their defaults."""

from __future__ import annotations

from dataclasses import dataclass

from dbresilience.typed_settings import number


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """How messages are consumed; batches, retries and the poll are those of ``OutboxSettings``.

    Attributes:
        session_timeout: seconds until the group gives the partitions of a silent worker to others
            (``KAFKA_SESSION_TIMEOUT``, 10; brokers take 6 to 1,800).
        inbox_retention: days that the inbox remembers what was handled, and keeps what was resolved
            (``INBOX_RETENTION``, 30). Longer than Kafka keeps messages, or repeats are told by sequence alone.
    """

    session_timeout: float
    inbox_retention: float


def consumer_settings() -> ConsumerSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    return ConsumerSettings(
        session_timeout=number("KAFKA_SESSION_TIMEOUT", 10.0, 1.0, 1_800.0),
        inbox_retention=number("INBOX_RETENTION", 30.0, 1.0, 36_500.0),
    )
