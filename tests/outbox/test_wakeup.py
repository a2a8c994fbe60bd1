from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from django.conf import LazySettings

from outbox import wakeup
from outbox.wakeup import Waiter, wake


@pytest.fixture
def channel() -> str:
    return secrets.token_hex(4)


@pytest.fixture
def waiter(channel: str, settings: LazySettings) -> Iterator[Waiter]:
    made = Waiter([channel])
    made.wait(0)
    # To subscribe only sends; a call on another connection could be served before it.
    ends = time.monotonic() + 60
    with redis.Redis.from_url(settings.REDIS_URL) as other:
        while other.pubsub_numsub(wakeup.PREFIX + channel)[0][1] == 0 and time.monotonic() < ends:
            time.sleep(0.005)
    yield made
    made.close()


def test_it_wakes_who_waits(waiter: Waiter, channel: str) -> None:
    wake(channel)

    assert waiter.wait(60)


def test_it_bundles_calls(waiter: Waiter, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[set[str]] = []
    monkeypatch.setattr(wakeup, "COALESCE_SECONDS", 5.0)
    caller = wakeup._Caller()
    send = caller._send
    monkeypatch.setattr(caller, "_send", lambda channels: sent.append(channels) or send(channels))
    for _ in range(1000):
        caller.call(channel)

    assert waiter.wait(60)
    assert len(sent) <= 2


def test_it_sends_the_last_of_a_bundle(waiter: Waiter, channel: str) -> None:
    wake(channel)
    assert waiter.wait(60)
    wake(channel)

    assert waiter.wait(60)


def test_it_calls_again_after_its_connection_went_stale(waiter: Waiter, channel: str) -> None:
    caller = wakeup._Caller()
    caller.call(channel)
    assert waiter.wait(60)
    assert caller._client is not None
    caller._client.client_kill_filter(skipme=False, _type="normal")
    caller.call(channel)

    assert waiter.wait(60)


def test_it_neither_raises_nor_slows_the_caller_without_redis(
    settings: LazySettings, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    caller = wakeup._Caller()
    begun = threading.Event()
    monkeypatch.setattr(caller, "_send", lambda channels: begun.wait(60))
    for _ in range(100):
        caller.call(channel)

    # None of them waited for what is sent, which took until now.
    begun.set()
    assert Waiter([channel]).wait(0.05) is False


def test_a_wait_ends_when_it_is_told_to(channel: str, settings: LazySettings) -> None:
    for url in (settings.REDIS_URL, "redis://127.0.0.1:1/0"):
        settings.REDIS_URL = url
        waiter = Waiter([channel])
        thread = threading.Thread(target=waiter.wait, args=(30,))
        thread.start()
        waiter.stop()
        thread.join(timeout=60)
        assert not thread.is_alive()
        waiter.close()
