"""The consumer worker: one member of a consumer group, in one thread."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from django.db import Error, close_old_connections, connection

from outbox import metrics
from outbox.conf import kafka_settings, outbox_settings
from outbox.consuming.attempting import Halted
from outbox.consuming.dead_letters import DeadLetters
from outbox.consuming.hand import Hand
from outbox.consuming.handlers import Outcome
from outbox.consuming.inbox import messages_handle
from outbox.consuming.lag import Lag
from outbox.consuming.messages import Record
from outbox.consuming.partitions import Partitions, Place
from outbox.consuming.retrying import Retries
from outbox.errors import ConfigurationError, DeliveryError

log = structlog.get_logger(__name__)

LONGEST_POLL_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.25
# What was fetched and is not handled by then is fetched again: the group expects a poll every five minutes.
LONGEST_STEP_SECONDS: Final = 60.0
RECOVERY_SECONDS: Final = (0.1, 5.0)


class ConsumerWorker:
    """Reads the topics of a group and handles their messages.

    Everything happens between two polls, and partitions come and go within a poll: so nothing is in hand when they do.
    An offset is stored for committing when the transaction with its effect has committed, and never before. librdkafka
    commits what is stored every second, when a partition is revoked, and at the end.

    Args:
        group: consumer group.
        topics: without their prefix.
        start_at: ``earliest`` or ``latest``, where a group begins that is new to a partition.
    """

    def __init__(self, group: str, topics: Sequence[str], *, start_at: str = "earliest") -> None:
        self._config = kafka_settings()
        self._group = group
        self.name = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._topics = list(topics)
        self._asked: Callable[[], bool] = lambda: False
        self._look_at = 0.0
        self._hand = Hand(group, self.name)
        self._retries = Retries(group, self._topics)
        self._dead_letters = DeadLetters(group, self._config)
        self.partitions = Partitions(group, self._topics, self._config, start_at=start_at, on_revoked=self._revoked)
        self._lag = Lag(group, self.name, self.partitions.consumer, self.partitions.prefix)

    @property
    def is_assigned(self) -> bool:
        """Whether the group has given it something to read."""
        return bool(self.partitions.mine)

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Work until told to stop; survives whatever is raised but a refusal by the broker.

        Raises:
            ConfigurationError: the broker refuses us.
        """
        self._asked = should_stop
        failures = 0
        while not should_stop():
            try:
                self.step()
                failures = 0
            except ConfigurationError:
                raise
            except Exception as exc:
                failures += 1
                if isinstance(exc, Halted):
                    log.warning("consumer_halted", group=self._group, code=exc.fault.code, message=exc.fault.message)
                else:
                    # A lost connection is news of the database, and a broker that is away of Kafka: no traceback.
                    known = isinstance(exc, Error | DeliveryError)
                    log.error("consumer_failed", group=self._group, failures=failures, exc_info=not known)
                connection.close()
                first, longest = RECOVERY_SECONDS
                self._pause(min(longest, first * 2 ** min(failures, 10)))
            # As at the end of a request: a pass borrows its connection, and no loan is as old as the process.
            close_old_connections()

    def run_until_idle(self, *, patience: float = 15.0) -> int:
        """Work until nothing waits; how many messages and retries were done with.

        Args:
            patience: seconds to wait for the group to give it partitions.

        Raises:
            Halted, DeliveryError, django.db.Error, KafkaException: whatever stops it.
        """
        done, until = 0, time.monotonic() + patience
        while True:
            count = self.step()
            done += count
            if count or (not self.partitions.mine and time.monotonic() < until):
                continue
            if self.partitions.mine <= self.partitions.ended:
                return done

    def step(self, *, timeout: float | None = None) -> int:
        """One unit of work: what is due, then what has arrived; how many messages and retries were done with.

        Args:
            timeout: seconds to wait for messages; None takes OUTBOX_POLLING_INTERVAL, half a second at most.

        Raises:
            Halted: nothing can be handled now.
            ConfigurationError: the broker refuses us.
            django.db.Error: the database is in trouble; what was fetched comes again.
        """
        done = self._look()
        if timeout is None:
            timeout = min(outbox_settings().polling_interval, LONGEST_POLL_SECONDS)
        records = self.partitions.fetch(timeout, most=outbox_settings().batch_size)
        ends = time.monotonic() + LONGEST_STEP_SECONDS
        while records:
            place, mine = records.popitem()
            try:
                done += self._handle(place, mine, ends)
            except BaseException:
                for other, rest in records.items():
                    self.partitions.again(other, rest[0].offset)
                raise
        self._lag.report(self.partitions.mine)
        return done

    def close(self) -> None:
        """Commit what is stored and leave the group."""
        self.partitions.close()

    def _look(self) -> int:
        """Serve retries and dead letters, now and then."""
        now = time.monotonic()
        if now < self._look_at:
            return 0
        outcomes = self._retries.serve_once()
        for outcome in outcomes:
            self._count(outcome, 1)
        written = self._dead_letters.write_once()
        if not outcomes and not written:
            self._look_at = now + LOOK_SECONDS
        return len(outcomes)

    def _handle(self, place: Place, records: list[Record], ends: float) -> int:
        """Handle the messages of one partition; how many are done with."""
        topic, partition = place
        done = 0
        try:
            while records and not self._asked() and time.monotonic() < ends:
                count, died = self._hand.take(topic, partition, [record.offset for record in records])
                handled = messages_handle(
                    group=self._group, topic=topic, worker=self.name, records=records[:count], died=died
                )
                if handled.count:
                    self.partitions.store(place, records[handled.count - 1].offset + 1)
                    del records[: handled.count]
                    done += handled.count
                for outcome, number in handled.outcomes.items():
                    self._count(outcome, number)
                    if outcome in (Outcome.RETRY, Outcome.DLQ):
                        self._look_at = 0.0
                if handled.halted is not None:
                    raise Halted(handled.halted)
        finally:
            if records:
                self.partitions.again(place, records[0].offset)
        return done

    def _revoked(self, place: Place) -> None:
        self._hand.forget(*place)
        self._lag.forget(place)

    def _count(self, outcome: Outcome, number: int) -> None:
        metrics.CONSUMED.labels(self._group, outcome.value).inc(number)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._asked() and (left := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left))
