"""The relay: sequences the log and brings its events to the subscribers.

One function for all who drain: Celery's beat, the long-running ``manage.py relay``, imports and tests. For each
subscriber it claims lanes, reads the next events of each, delivers them (outside of any transaction, or inside the one
that settles), and settles on the condition that the lanes are still its own. No status is written per event; what fails
leaves rows.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

import structlog
from django.db import Error, connection

from outbox.batches import Batches
from outbox.cursors import Cursors
from outbox.partitions import partitions_make
from outbox.retries import Retries
from outbox.sequencing import Sequencer
from outbox.subscribers import Deadline, Subscriber, subscribers
from outbox.subscriptions import subscription_ensure, subscriptions_ensure
from outbox.worker import Worker

log = structlog.get_logger(__name__)

UPKEEP_SECONDS: Final = 60.0
RESTING_SECONDS: Final = 0.02

# A pool gives out another of its sessions at each pass; what was set in one stays.
_without_jit: Final[WeakSet[Any]] = WeakSet()


class SubscriberRelay:
    """Brings events to one subscriber, as far as its lanes are free; of one thread.

    Args:
        subscriber: whom it serves.
        resident: True for a relay that stays, and shares the lanes evenly with the other relays.
    """

    def __init__(self, subscriber: Subscriber, *, resident: bool = False) -> None:
        self._worker = Worker(subscriber, resident=resident)
        self._leases = self._worker.leases
        self._cursors = Cursors(self._worker)
        self._retries = Retries(self._worker, self._cursors)
        self._batches = Batches(self._worker, self._cursors)
        self._sequencer = Sequencer()
        self._head = 0
        self._next_upkeep = 0.0
        self._session: Any = None
        self._history = ""

    def step(self) -> int:
        """One pass: sequence, serve what is due, deliver one chunk; how much was done.

        Raises:
            django.db.Error: the database is in trouble. What was delivered and not settled will come again.
        """
        try:
            return self._step()
        except BaseException:
            # What is in memory may be ahead of what was written. The lanes are ours still, and are claimed anew.
            self._forget()
            raise

    def leave(self) -> None:
        """Settle what is done and give all lanes back."""
        if self._leases.held:
            self._cursors.settle_all()
            self._cursors.mark()
        self._worker.tally.write()
        self._leases.leave()

    @property
    def resting(self) -> bool:
        """Whether lanes were left out for a moment that may have more events."""
        return self._batches.resting

    @property
    def unsettled(self) -> bool:
        """Whether something went through that is not settled yet."""
        return self._cursors.unsettled

    def _step(self) -> int:
        self._upkeep()
        self._leases.keep()
        if excess := self._leases.excess():
            self._cursors.settle(excess)
            self._leases.release(excess)
        # The head is read before the batch: a lane that is read to its end then has nothing up to there.
        sequenced = self._sequencer.sequence_once()
        if sequenced is not None:
            self._head = max(self._head, sequenced.head)
        done = sequenced.events if sequenced is not None and sequenced.full else 0
        self._worker.gate_look()
        if self._leases.held:
            if self._worker.may_try:
                retried = self._retries.serve_due()
                done += retried
                if retried:
                    # That was a call, which may have taken long; what comes next is another one.
                    self._worker.gate_look()
            if self._worker.may_try:
                done += self._batches.deliver_next(self._head, fresh=sequenced is not None)
        self._worker.gate_leave()
        self._cursors.settle_due()
        return done

    def _forget(self) -> None:
        self._leases.forget()
        self._sequencer.forget()
        self._batches.forget()
        self._retries.forget()
        self._head = 0

    def _upkeep(self) -> None:
        connection.ensure_connection()
        if connection.connection is not self._session:
            self._begin_session()
        now = time.monotonic()
        if now >= self._next_upkeep:
            self._next_upkeep = now + UPKEEP_SECONDS
            subscription_ensure(self._worker.subscriber)
            partitions_make(connection)

    def _begin_session(self) -> None:
        session = self._session = connection.connection
        # A pool replaces dead sessions without a word: nobody else tells of a database that took another's place.
        history = getattr(session, "history", "")
        if history != self._history:
            self._forget()
            self._history = history
        if session not in _without_jit:
            # Plans of wide reads look costly enough to be compiled, which takes longer than to run them.
            with connection.cursor() as cursor:
                cursor.execute("SET jit = off")
            _without_jit.add(session)


def relay_once(subscriber: Subscriber | None = None, *, seconds: float = 20.0) -> int:
    """Sequence and deliver until nothing is left that could be delivered now.

    Args:
        subscriber: only this one; None takes all of OUTBOX_SUBSCRIBERS, one after the other.
        seconds: begin nothing new after that long, for each subscriber.

    Returns:
        Events that went through or failed.

    Raises:
        django.db.Error: the database is in trouble.
    """
    if subscriber is None:
        subscriptions_ensure()
    done = 0
    for one in subscribers() if subscriber is None else (subscriber,):
        done += _drain(SubscriberRelay(one), Deadline.after(seconds))
    if done:
        log.info("outbox_drained", events=done)
    return done


def _drain(relay: SubscriberRelay, deadline: Deadline) -> int:
    done = 0
    try:
        while (count := relay.step()) or relay.resting:
            done += count
            if not deadline.remaining():
                break
            if not count:
                time.sleep(RESTING_SECONDS)
    finally:
        with suppress(Error):
            relay.leave()
    return done


def relay_until_idle(*, seconds: float = 60.0) -> int:
    """Run ``relay_once`` until it finds nothing, for tests, imports and demonstrations.

    Retries that are not due yet and paused subscribers are not waited for.

    Returns:
        Events that went through or failed.
    """
    deadline = Deadline.after(seconds)
    done = 0
    while count := relay_once(seconds=deadline.remaining()):
        done += count
        if not deadline.remaining():
            break
    return done
