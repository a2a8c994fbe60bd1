"""The long-running relay: one thread per subscriber and per companion, woken by calls and polling besides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from django.db import Error, close_old_connections, connection
from django.utils.module_loading import import_string

from dbresilience.typed_settings import setting
from outbox.conf import outbox_settings
from outbox.relay import SubscriberRelay
from outbox.subscribers import Subscriber, subscribers
from outbox.subscriptions import subscriptions_ensure
from outbox.wakeup import Waiter

log = structlog.get_logger(__name__)

# After work it looks again soon: calls are bundled to one each 50 ms, and the next event is likely close behind.
SOON_SECONDS: Final = 0.012
LINGER_SECONDS: Final = 0.3
RECOVERY_SECONDS: Final = (0.1, 5.0)
COMPANION_CHANNELS: Final = ("log", "sync", "webhooks")


class Relay:
    """All threads of one relay process.

    Args:
        only: names of the subscribers to serve; None serves all, and the companions.
    """

    def __init__(self, only: list[str] | None = None) -> None:
        self._stop = threading.Event()
        self._loops: list[_Loop] = []
        self._only = only

    def start(self) -> None:
        """Begin; returns at once."""
        subscriptions_ensure()
        connection.close()
        for subscriber in subscribers():
            if self._only is None or subscriber.name in self._only:
                self._loops.append(_SubscriberLoop(subscriber, self._stop))
        if self._only is None:
            self._loops += [_CompanionLoop(path, self._stop) for path in setting("OUTBOX_RELAY_COMPANIONS", [])]
        for loop in self._loops:
            loop.start()
        log.info("relay_started", threads=[loop.name for loop in self._loops])

    def stop(self, timeout: float = 30.0) -> bool:
        """End all threads after what they are doing, settle, give the lanes back; False if one did not end in time."""
        self._stop.set()
        deadline = time.monotonic() + timeout
        for loop in self._loops:
            loop.waiter.stop()
        for loop in self._loops:
            loop.join(max(0.0, deadline - time.monotonic()))
        ended = not any(loop.is_alive() for loop in self._loops)
        if ended:
            for subscriber in subscribers():
                subscriber.close()
        log.info("relay_stopped", clean=ended)
        return ended


class _Loop(threading.Thread):
    """Works while there is work, then waits; survives whatever is raised."""

    def __init__(self, name: str, channels: tuple[str, ...], stop: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.waiter = Waiter(channels)
        self._stop_asked = stop
        self._polling = outbox_settings().polling_interval

    def run(self) -> None:
        failures, worked_at = 0, 0.0
        while not self._stop_asked.is_set():
            try:
                count = self.work()
                failures = 0
            except Exception as exc:
                failures += 1
                first, longest = RECOVERY_SECONDS
                # A lost connection is news of the database, not of this loop: no traceback.
                log.error("relay_loop_failed", loop=self.name, failures=failures, exc_info=not isinstance(exc, Error))
                connection.close()
                self._stop_asked.wait(min(longest, first * 2 ** min(failures, 10)))
                continue
            # As at the end of a request: a pass borrows its connection, and no loan is as old as the process.
            close_old_connections()
            now = time.monotonic()
            if count:
                worked_at = now
            elif now - worked_at < LINGER_SECONDS:
                self._stop_asked.wait(SOON_SECONDS)
            else:
                self.waiter.wait(self._polling)
        self.finish()
        self.waiter.close()
        connection.close()

    def work(self) -> int:
        """One unit of work; how much was done."""
        raise NotImplementedError

    def finish(self) -> None:
        """Called once, at the end."""


class _SubscriberLoop(_Loop):
    def __init__(self, subscriber: Subscriber, stop: threading.Event) -> None:
        super().__init__(f"relay-{subscriber.name}", ("log",), stop)
        self._relay = SubscriberRelay(subscriber, resident=True)

    def work(self) -> int:
        return self._relay.step()

    def finish(self) -> None:
        try:
            self._relay.leave()
        except Error:
            log.warning("relay_left_badly", loop=self.name)


class _CompanionLoop(_Loop):
    """Calls a function ``xxx_once() -> int`` of another app, which the settings name."""

    def __init__(self, path: str, stop: threading.Event) -> None:
        super().__init__(f"companion-{path}", COMPANION_CHANNELS, stop)
        self._function: Callable[[], int] = import_string(path)

    def work(self) -> int:
        return self._function()
