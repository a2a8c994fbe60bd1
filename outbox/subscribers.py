"""Subscribers: the classes that receive the log's events, and the table of those that are in use."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from dbresilience.typed_settings import setting
from outbox.conf import outbox_settings
from outbox.errors import ErrorClass, UnknownSubscriber
from outbox.events import Event


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of this process's monotonic clock by which a call must have ended.

    Attributes:
        at: seconds of ``time.monotonic()``.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())


@dataclass(frozen=True, slots=True)
class Failure:
    """One event that did not go through.

    Attributes:
        event: the event.
        error_class: what is to be done about it.
        code: stable short word, for grouping.
        message: one bounded sentence for a person; nothing secret.
        traceback: bounded, or the empty string.
        response: what the other side answered, in short; nothing secret.
    """

    event: Event
    error_class: ErrorClass
    code: str
    message: str
    traceback: str = ""
    response: str = ""


class Subscriber:
    """Base of everything that reads the log. One instance per process; ``deliver`` may run in several threads.

    Attributes:
        name: its name for ever, in the database, the console and the metrics.
        topics: the topics that it wants, or None for all.
        transactional: True runs ``deliver`` inside the transaction that moves the cursor (exactly once, database work
            only); False runs it outside of any transaction (at least once).
        start_at: where a new subscriber begins, at the ``first`` event of the log or at its ``head``.
        call_seconds: no call of ``deliver`` lasts longer; a call starts only if its lease lasts longer than that.
        ladder: upper bounds, in seconds, of the waits before each retry; then the delivery is dead. None takes
            1, 2, 4, 8 ... for OUTBOX_MAX_RETRIES.
        batch_size: events of one lane per call; None takes OUTBOX_BATCH_SIZE.
        dead_policy: ``block`` or ``skip``: whether a dead delivery holds its aggregate back (see ``outbox.policies``);
            OUTBOX_DEAD_POLICY goes before.
        takes_repeats: whether events may come again, in order, without harm. Those outside of transactions must; a
            transactional one that says so can be sent back in the log.
        rate_limit: events a second over all processes, or None; the subscription's own goes before.
        concurrency: calls of ``deliver`` at a time over all processes, or None; the subscription's own goes before.
    """

    name: ClassVar[str]
    topics: ClassVar[frozenset[str] | None] = None
    transactional: ClassVar[bool] = False
    start_at: ClassVar[Literal["first", "head"]] = "first"
    call_seconds: float = 10.0
    ladder: tuple[float, ...] | None = None
    batch_size: int | None = None
    dead_policy: Literal["block", "skip"] = "block"
    takes_repeats: bool | None = None
    rate_limit: float | None = None
    concurrency: int | None = None

    def deliver(self, events: Sequence[Event], deadline: Deadline) -> list[Failure]:
        """Take the events, those of one aggregate in their order.

        After an event failed, later ones of its aggregate must be left alone: they will come again.

        Args:
            events: of one or several lanes, in the order of the log.
            deadline: by then the call must have ended and nothing of it may be under way.

        Returns:
            What failed; all else went through.

        Raises:
            DeliveryError: none went through.
            Exception: something unforeseen; the batch is cut in halves until the event that raises stands alone.
        """
        raise NotImplementedError

    def after_commit(self, events: Sequence[Event]) -> None:
        """Called after the transaction of a transactional subscriber, with the events that went through."""

    def receipts(self, events: Sequence[Event]) -> Mapping[int, str]:
        """What the other side said to the events of this thread's last call, by id of the event; for the timeline.

        It is asked only for attempts that are kept: those after a failure, and all while ``keep_successes`` is on.
        """
        return {}

    def close(self) -> None:
        """Let go of connections; called once when the process ends in good order."""

    @property
    def may_repeat(self) -> bool:
        """Whether events may be given to it again."""
        return not self.transactional if self.takes_repeats is None else self.takes_repeats

    def retry_ladder(self) -> tuple[float, ...]:
        """The waits in force."""
        if self.ladder is not None:
            return self.ladder
        return tuple(min(2.0**step, 3600.0) for step in range(outbox_settings().max_retries))


@lru_cache(maxsize=1)
def subscribers() -> tuple[Subscriber, ...]:
    """The subscribers in use, in the order of OUTBOX_SUBSCRIBERS."""
    return tuple(import_string(path)() for path in setting("OUTBOX_SUBSCRIBERS", []))


def subscriber_named(name: str) -> Subscriber:
    """The subscriber of this name.

    Raises:
        UnknownSubscriber: none is listed.
    """
    for subscriber in subscribers():
        if subscriber.name == name:
            return subscriber
    raise subscriber_unknown(name)


def subscriber_unknown(name: str) -> UnknownSubscriber:
    """That there is none of this name, and which there are."""
    known = ", ".join(subscriber.name for subscriber in subscribers()) or "none"
    return UnknownSubscriber(f"OUTBOX_SUBSCRIBERS lists no subscriber named {name[:100]!r}, but these: {known}.")


@receiver(setting_changed)
def _forget(*, setting: str, **_: object) -> None:
    if setting == "OUTBOX_SUBSCRIBERS":
        subscribers.cache_clear()
