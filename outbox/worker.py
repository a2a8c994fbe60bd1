"""What the parts of a relay share: whom it serves, which lanes it holds, and how a call of the subscriber is made."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import structlog
from django.db import Error

from outbox.conf import outbox_settings
from outbox.errors import DeliveryError, ErrorClass
from outbox.events import Event
from outbox.failures import HALTING, Failed, Handling, Succeeded, failure_of, is_database_trouble
from outbox.gates import (
    Gate,
    Look,
    breaker_close,
    breaker_open,
    gate_look,
    probe_claim,
    probe_return,
    tokens_give_back,
    tokens_take,
)
from outbox.leases import LaneLeases
from outbox.naming import batch_step
from outbox.policies import goes_on
from outbox.subscribers import Deadline, Failure, Subscriber
from outbox.subscriptions import subscription_pause
from outbox.tally import Tally

log = structlog.get_logger(__name__)

LEASE_MARGIN_SECONDS: Final = 2.0
# Pause and breaker are looked at once in a pass, and are to be heeded within a second: no further call of a pass begins
# later than this after its first one.
FOLLOWING_SECONDS: Final = 0.25


class Worker:
    """One worker of one subscriber.

    Args:
        subscriber: whom it serves.
        resident: True for a relay that stays, and shares the lanes evenly with the other relays.

    Attributes:
        subscriber: whom it serves.
        name: of the subscriber.
        handling: how its failures are handled.
        batch: events of one lane at a time.
        lease_seconds: length of a lease.
        leases: the lanes that it holds.
        gate: whether events may be given now; looked at before each chunk.
        tally: what was done by topic, until it is written.
        call_ended: monotonic moment at which the last call ended.
        call_seconds: how long it took.
    """

    def __init__(self, subscriber: Subscriber, *, resident: bool) -> None:
        config = outbox_settings()
        self.subscriber = subscriber
        self.name = subscriber.name
        self.batch = subscriber.batch_size or config.batch_size
        self.lease_seconds = config.lease_seconds
        owner = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.leases = LaneLeases(self.name, owner, config.lease_seconds, resident=resident)
        self.handling = Handling(self.name, subscriber.retry_ladder(), owner, goes_on(subscriber))
        self.gate = Gate.CLOSED
        self.tally = Tally(self.name)
        self.call_ended = time.monotonic()
        self.call_seconds = 0.0
        self._look = Look(Gate.CLOSED)
        self._tried = False

    @property
    def may_try(self) -> bool:
        """Whether another call may be made: after an outage, one at most until it is known what became of it."""
        return self.gate is Gate.OPEN or (self.gate is Gate.PROBE and not self._tried)

    @property
    def rate_limit(self) -> float | None:
        """Events a second over all processes, or None."""
        return self.subscriber.rate_limit if self._look.rate_limit is None else self._look.rate_limit

    @property
    def keeps_successes(self) -> bool:
        """Whether an attempt of each event that went through is kept."""
        return self._look.keep_successes

    def gate_look(self) -> None:
        """Look at pause, breaker and limits; after an outage, claim the one try."""
        self._tried = False
        self._look = gate_look(self.name)
        self.gate = self._look.gate
        declared = self.subscriber.concurrency
        self.leases.concurrency = declared if self._look.concurrency is None else self._look.concurrency
        if self.gate is Gate.PROBE and not probe_claim(self.name, seconds=self.lease_seconds):
            self.gate = Gate.CLOSED

    def allowance(self, want: int) -> int:
        """How many events may be delivered now, of ``want``; what is not used must be given back."""
        rate = self.rate_limit
        return want if rate is None else tokens_take(self.name, rate=rate, want=want)

    def give_back(self, count: int) -> None:
        """Give back what of an allowance was not used."""
        if self.rate_limit is not None:
            tokens_give_back(self.name, count)

    def gate_leave(self) -> None:
        """Give a claimed try back if there was nothing to try it with."""
        if self.gate is Gate.PROBE and not self._tried:
            probe_return(self.name)

    def lease_lasts(self) -> bool:
        """Whether a call that takes its whole time would still end before our leases do; renews them first."""
        if not self._call_fits():
            self.leases.renew()
        return self._call_fits()

    def may_follow(self, began: float) -> bool:
        """Whether another call may be made in the same pass as one that began at this monotonic moment."""
        in_time = time.monotonic() - began <= FOLLOWING_SECONDS
        return in_time and self.gate is Gate.OPEN and self._call_fits()

    def _call_fits(self) -> bool:
        return self.leases.remaining() >= self.subscriber.call_seconds + LEASE_MARGIN_SECONDS

    def deadline(self) -> Deadline:
        """By when a call that starts now must have ended."""
        return Deadline.after(min(self.subscriber.call_seconds, self.leases.remaining()))

    def deliver_outside(self, events: Sequence[Event]) -> list[Failure] | None:
        """Deliver outside of any transaction.

        Returns:
            What failed; None if it raised and no single event is to blame.

        Raises:
            django.db.Error: the database is in trouble.
        """
        if not events:
            return []
        try:
            with self.calling(events):
                return self.subscriber.deliver(events, self.deadline())
        except Exception as exc:
            if isinstance(exc, Error) and is_database_trouble(exc):
                raise
            if len(events) > 1 and not (isinstance(exc, DeliveryError) and exc.error_class in HALTING):
                log.warning("delivery_raised", subscriber=self.name, events=len(events), error=type(exc).__name__)
                return None
            return [failure_of(event, exc) for event in events]

    @contextmanager
    def calling(self, events: Sequence[Event]) -> Iterator[None]:
        """A call of the subscriber with these events: one step of their traces; takes its time."""
        began = time.monotonic()
        try:
            with batch_step(f"deliver to {self.name}", events, kind="consumer"):
                yield
        finally:
            self.call_ended = time.monotonic()
            self.call_seconds = self.call_ended - began
            self.tally.took(self.call_seconds)

    def failed(self, failure: Failure, attempts: int = 1, *, counted: bool = False) -> Failed:
        """A failure of the last call, to be recorded."""
        return Failed(failure, attempts, counted, self.call_seconds)

    def successes(self, events: Sequence[Event], numbers: Mapping[int, int] | None = None) -> list[Succeeded]:
        """Attempts of the last call that went through, to be kept: those in ``numbers``, by id; None keeps all."""
        kept = [event for event in events if self.keeps_successes or (numbers is not None and event.id in numbers)]
        said = self.subscriber.receipts(kept) if kept else {}
        return [
            Succeeded(
                event.id,
                1 if numbers is None else numbers.get(event.id, 1),
                self.call_ended,
                self.call_seconds,
                said.get(event.id, ""),
            )
            for event in kept
        ]

    def conclude(self, events: Sequence[Event], failures: Sequence[Failure]) -> int:
        """Act on what a call told about the other side: breaker and pause.

        Returns:
            How many events are done with, at least one for lanes that moved without any.
        """
        self._tried = self._tried or bool(events)
        halting = [failure for failure in failures if failure.error_class in HALTING]
        wrong = next((one for one in halting if one.error_class is ErrorClass.CONFIGURATION), None)
        if wrong is not None:
            subscription_pause(name=self.name, reason=f"{wrong.code}: {wrong.message}"[:1000])
        elif halting and len(halting) == len(events):
            breaker_open(self.name, message=f"{halting[0].code}: {halting[0].message}")
        elif self.gate is Gate.PROBE and events and not halting:
            breaker_close(self.name)
        return max(1, len(events)) - len(halting)
