"""Wake-up calls between processes, over Redis: they shorten waits, and nothing depends on them.

Whoever waits also polls, so a call that is lost, or a Redis that is away, costs up to one polling interval and nothing
else. A call never runs in the caller's thread: a request is not slowed by a slow Redis.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from operations.redis_connection import redis_url

log = structlog.get_logger(__name__)

PREFIX: Final = "zenskar.wake."
COALESCE_SECONDS: Final = 0.05
BACK_OFF_SECONDS: Final = 5.0
_SOCKET_SECONDS: Final = 0.5


def wake(channel: str) -> None:
    """Wake those who wait on ``channel``; returns at once and never raises.

    The first call goes out at once, further ones of the same process within 50 ms as one, at the end of that time.
    """
    _Caller.of_this_process().call(channel)


class _Caller:
    """The thread of this process that sends wake-up calls."""

    _instance: _Caller | None = None
    _guard = threading.Lock()

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._wanted: set[str] = set()
        self._changed = threading.Condition()
        self._client: redis.Redis | None = None
        threading.Thread(target=self._run, name="outbox-wakeup", daemon=True).start()

    @classmethod
    def of_this_process(cls) -> _Caller:
        found = cls._instance
        # Threads do not survive a fork: a child makes its own.
        if found is None or found.pid != os.getpid():
            if found is not None and found.pid != os.getpid():
                cls._guard = threading.Lock()
            with cls._guard:
                found = cls._instance
                if found is None or found.pid != os.getpid():
                    found = cls._instance = cls()
        return found

    def call(self, channel: str) -> None:
        with self._changed:
            self._wanted.add(channel)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted)
                channels, self._wanted = self._wanted, set()
            # A connection that went stale is made anew at once; a Redis that is away is left alone for a while, and the
            # calls are made when it is back: whoever waits may not have heard that it was away.
            if self._send(channels) or self._send(channels):
                time.sleep(COALESCE_SECONDS)
                continue
            with self._changed:
                self._wanted |= channels
            time.sleep(BACK_OFF_SECONDS)

    def _send(self, channels: set[str]) -> bool:
        try:
            if self._client is None:
                self._client = _client(redis_url())
            for channel in channels:
                self._client.publish(PREFIX + channel, b"")
        except (redis.RedisError, OSError, ValueError) as exc:
            log.info("wakeup_unsent", error=type(exc).__name__)
            self._client = None
            return False
        return True


class Waiter:
    """Waits for calls on some channels; one per thread.

    Args:
        channels: what to wait for.
    """

    def __init__(self, channels: Iterable[str]) -> None:
        self._channels = [PREFIX + channel for channel in channels]
        self._client: Any = None
        self._subscription: Any = None
        self._next_try = 0.0
        self._stopped = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds; True if a call came. Without Redis it waits the whole time."""
        deadline = time.monotonic() + timeout
        try:
            if self._subscription is None and time.monotonic() >= self._next_try:
                # Kept as long as the subscription: a client that is collected closes its connections, this one too.
                self._client = _client(redis_url())
                subscription = self._client.pubsub(ignore_subscribe_messages=True)
                subscription.subscribe(*self._channels)
                # Each channel is confirmed; a call that is made before that reaches nobody.
                for _ in self._channels:
                    subscription.get_message(timeout=_SOCKET_SECONDS)
                self._subscription = subscription
            while self._subscription is not None and not self._stopped.is_set():
                left = deadline - time.monotonic()
                # In short pieces, so that ``stop`` is heard soon.
                if self._subscription.get_message(timeout=max(0.0, min(left, 0.2))) is not None:
                    self._drain()
                    return True
                if left <= 0:
                    return False
        except (redis.RedisError, OSError, ValueError) as exc:
            log.info("wakeup_unheard", error=type(exc).__name__)
            self._forget()
        self._stopped.wait(max(0.0, deadline - time.monotonic()))
        return False

    def stop(self) -> None:
        """End a wait that is under way, and all later ones; callable from another thread or a signal handler."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the connection."""
        self._forget()

    def _drain(self) -> None:
        while self._subscription.get_message(timeout=0) is not None:
            pass

    def _forget(self) -> None:
        subscription, self._subscription = self._subscription, None
        self._next_try = time.monotonic() + BACK_OFF_SECONDS
        if subscription is not None:
            subscription.close()
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _client(url: str) -> redis.Redis:
    # The library may retry with waits of its own, by which a wait would outlast its time.
    once = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(url, socket_timeout=_SOCKET_SECONDS, socket_connect_timeout=_SOCKET_SECONDS, retry=once)
