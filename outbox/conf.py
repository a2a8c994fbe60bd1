"""Settings of this app, with their defaults; each is a Django setting or an environment variable of the same name."""

from __future__ import annotations

from dataclasses import dataclass

from dbresilience.typed_settings import as_number, number, pairs, setting, whole


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """How the log is read.

    Attributes:
        batch_size: events of one lane that are read and delivered at a time (``OUTBOX_BATCH_SIZE``, 100).
        polling_interval: seconds; a relay looks at least that often, woken or not (``OUTBOX_POLLING_INTERVAL``, 1).
        max_retries: attempts after the first one; then the delivery is dead (``OUTBOX_MAX_RETRIES``, 5).
        lease_seconds: how long a lane stays with a relay that gives no sign (``OUTBOX_LEASE_SECONDS``, 30). A dead
            relay's lanes rest that long; the time-out of one call must be shorter.
        alert_lag: seconds that an event may wait before readiness says so (``OUTBOX_ALERT_LAG_SECONDS``, 60).
    """

    batch_size: int
    polling_interval: float
    max_retries: int
    lease_seconds: float
    alert_lag: float


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long things are kept, in days.

    Attributes:
        topics: events, by topic; ``*`` is for the topics that are not named, and without it those are kept for ever
            (``OUTBOX_RETENTION``, ``customers=365,*=90``; nothing by default).
        attempts: the timeline of deliveries (``OUTBOX_ATTEMPT_RETENTION``, 90).
        deliveries: resolved ones, and what replaced them (``OUTBOX_DELIVERY_RETENTION``, 90).
        watermarks: the history behind ``processed_at`` (``OUTBOX_WATERMARK_RETENTION``, 30).
    """

    topics: dict[str, float]
    attempts: float
    deliveries: float
    watermarks: float


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How events reach Kafka.

    Attributes:
        bootstrap_servers: ``host:port,host:port`` (``KAFKA_BOOTSTRAP_SERVERS``); empty means that there is no Kafka.
        topic_prefix: goes before the topic of an event, with a dot (``KAFKA_TOPIC_PREFIX``, zenskar).
        message_timeout: seconds until an event that no broker acknowledged is given up, for this attempt
            (``KAFKA_MESSAGE_TIMEOUT``, 10).
        message_max_bytes: the largest message that the broker takes (``KAFKA_MESSAGE_MAX_BYTES``, 1000000).
        partitions: of a topic that we make (``KAFKA_TOPIC_PARTITIONS``, 6).
        replication_factor: of a topic that we make; -1 leaves it to the broker (``KAFKA_REPLICATION_FACTOR``, -1).
        source: the CloudEvents source (``KAFKA_EVENT_SOURCE``, /zenskar).
        extra: further settings of librdkafka, such as those of SASL and TLS (``KAFKA_CONFIG``, a dictionary; as an
            environment variable ``name=value,name=value``).
    """

    bootstrap_servers: str
    topic_prefix: str
    message_timeout: float
    message_max_bytes: int
    partitions: int
    replication_factor: int
    source: str
    extra: dict[str, str]


def outbox_settings() -> OutboxSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    return OutboxSettings(
        batch_size=whole("OUTBOX_BATCH_SIZE", 100, 1, 10_000),
        polling_interval=number("OUTBOX_POLLING_INTERVAL", 1.0, 0.01, 60.0),
        max_retries=whole("OUTBOX_MAX_RETRIES", 5, 0, 100),
        lease_seconds=number("OUTBOX_LEASE_SECONDS", 30.0, 1.0, 3600.0),
        alert_lag=number("OUTBOX_ALERT_LAG_SECONDS", 60.0, 1.0, 86_400.0),
    )


def statistics_seconds() -> float:
    """OUTBOX_STATISTICS_SECONDS: how old the statistics may be that the API gives (1); 0 makes them for each request.

    Raises:
        ImproperlyConfigured: it is no number or out of its range.
    """
    return number("OUTBOX_STATISTICS_SECONDS", 1.0, 0.0, 60.0)


def kafka_settings() -> KafkaSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    return KafkaSettings(
        bootstrap_servers=str(setting("KAFKA_BOOTSTRAP_SERVERS", "")),
        topic_prefix=str(setting("KAFKA_TOPIC_PREFIX", "zenskar")),
        message_timeout=number("KAFKA_MESSAGE_TIMEOUT", 10.0, 0.5, 3600.0),
        message_max_bytes=whole("KAFKA_MESSAGE_MAX_BYTES", 1_000_000, 1_000, 1_000_000_000),
        partitions=whole("KAFKA_TOPIC_PARTITIONS", 6, 1, 10_000),
        replication_factor=whole("KAFKA_REPLICATION_FACTOR", -1, -1, 100),
        source=str(setting("KAFKA_EVENT_SOURCE", "/zenskar")),
        extra=pairs("KAFKA_CONFIG"),
    )


def retention_settings() -> RetentionSettings:
    """The settings in force.

    Raises:
        ImproperlyConfigured: a value is no number or out of its range; the message names the setting.
    """
    topics = {
        topic: as_number("OUTBOX_RETENTION", days, 1.0, 36_500.0) for topic, days in pairs("OUTBOX_RETENTION").items()
    }
    return RetentionSettings(
        topics=topics,
        attempts=number("OUTBOX_ATTEMPT_RETENTION", 90.0, 1.0, 36_500.0),
        deliveries=number("OUTBOX_DELIVERY_RETENTION", 90.0, 1.0, 36_500.0),
        watermarks=number("OUTBOX_WATERMARK_RETENTION", 30.0, 1.0, 36_500.0),
    )


def dead_policies() -> dict[str, str]:
    """OUTBOX_DEAD_POLICY: by subscriber and topic, ``block`` or ``skip`` (see ``outbox.policies``).

    Raises:
        ImproperlyConfigured: it does not look like name=value,name=value.
    """
    return pairs("OUTBOX_DEAD_POLICY")


def payload_validators() -> dict[str, str]:
    """OUTBOX_PAYLOAD_VALIDATORS: by type of event, the path of a function (see ``outbox.replacing``).

    Raises:
        ImproperlyConfigured: it does not look like name=value,name=value.
    """
    return pairs("OUTBOX_PAYLOAD_VALIDATORS")
