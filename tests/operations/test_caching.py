"""Documents kept for a moment: never older than was promised, whoever races with whom and whatever Redis does."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import redis
from django.conf import settings as django_settings
from django.test import Client
from pytest_django import Settings

from operations import redis_connection
from operations.caching import MomentaryCache
from operations.redis_connection import PatientRedis
from tests.outbox.conftest import publish_all
from zenskar.sandbox import processes
from zenskar.sandbox.redis import Redis

pytestmark = pytest.mark.feature("A17")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """How often Redis was waited for in vain: with time for a busy machine, and a back-off that outlives the test."""
    found: list[Exception] = []
    noted = PatientRedis._note_failure

    def note(self: PatientRedis, exc: Exception) -> None:
        found.append(exc)
        noted(self, exc)

    monkeypatch.setattr(redis_connection, "_shared", {})
    monkeypatch.setattr(redis_connection, "TIMEOUT", 30.0)
    monkeypatch.setattr(redis_connection, "BACK_OFF", 3600.0)
    monkeypatch.setattr(PatientRedis, "_note_failure", note)
    return found


@pytest.fixture
def own_redis(settings: Settings, tmp_path: Any) -> Iterator[Redis]:
    """A Redis of this test alone, which may be stopped."""
    server = Redis(port=processes.free_port(), log=tmp_path / "redis.log")
    server.start()
    server.wait_until_ready()
    settings.REDIS_URL = server.url
    yield server
    server.stop()


def cache(seconds: float = 30.0) -> MomentaryCache:
    return MomentaryCache(f"tests:{uuid4().hex}", seconds=lambda: seconds)


class Figure:
    """What is cached: a number, with how often it was read."""

    def __init__(self) -> None:
        self.value = 0
        self.made = 0

    def make(self) -> dict[str, Any]:
        self.made += 1
        return {"value": self.value}


def test_it_makes_a_document_once_for_many_and_anew_after_it_was_forgotten() -> None:
    kept, figure = cache(), Figure()

    answers = [kept.get(figure.make) for _ in range(5)]
    figure.value = 1
    old = kept.get(figure.make)
    kept.forget()
    new = kept.get(figure.make)

    assert (answers, old, new, figure.made) == ([{"value": 0}] * 5, {"value": 0}, {"value": 1}, 2)


def test_it_keeps_nothing_longer_than_its_time() -> None:
    kept, figure = cache(0.05), Figure()
    kept.get(figure.make)
    figure.value = 1
    ends = time.monotonic() + 60

    while kept.get(figure.make) == {"value": 0}:
        assert time.monotonic() < ends

    assert figure.made == 2


def test_a_slow_reader_puts_no_old_document_back() -> None:
    kept, figure = cache(), Figure()
    reading, forgotten = threading.Event(), threading.Event()

    def slowly() -> dict[str, Any]:
        made = figure.make()
        reading.set()
        assert forgotten.wait(60)
        return made

    slow = threading.Thread(target=lambda: kept.get(slowly))
    slow.start()
    assert reading.wait(60)
    figure.value = 1
    kept.forget()
    forgotten.set()
    slow.join()

    assert kept.get(figure.make) == {"value": 1}


def test_no_answer_is_older_than_what_was_forgotten_before_it_was_asked_for() -> None:
    kept, figure = cache(), Figure()
    acknowledged, stop = [0], threading.Event()
    stale: list[tuple[int, int]] = []

    def read() -> None:
        while not stop.is_set():
            at_least = acknowledged[0]
            found = kept.get(figure.make)["value"]
            if found < at_least:
                stale.append((found, at_least))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(1, 200):
        figure.value = number
        kept.forget()
        acknowledged[0] = number
    stop.set()
    for reader in readers:
        reader.join()

    assert stale == []
    assert kept.get(figure.make) == {"value": 199}


def test_it_is_right_after_redis_was_emptied(own_redis: Redis) -> None:
    kept, figure = cache(), Figure()
    kept.get(figure.make)
    kept.forget()
    kept.get(figure.make)
    figure.value = 1

    redis.Redis.from_url(own_redis.url).flushall()

    assert kept.get(figure.make) == {"value": 1}


@pytest.mark.parametrize("how", ["away", "paused"])
def test_it_does_without_redis_and_waits_for_it_once(
    own_redis: Redis, how: str, waits: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, figure = cache(), Figure()
    kept.get(figure.make)
    # The next connection is one with the product's patience.
    monkeypatch.setattr(redis_connection, "TIMEOUT", 0.25)
    redis_connection._shared.clear()
    pid = redis.Redis.from_url(own_redis.url).info("server")["process_id"]
    if how == "away":
        own_redis.stop()
    else:
        os.kill(pid, signal.SIGSTOP)
    try:
        figure.value = 1
        kept.forget()
        answers = [kept.get(figure.make) for _ in range(20)]
    finally:
        if how == "paused":
            os.kill(pid, signal.SIGCONT)

    assert answers == [{"value": 1}] * 20
    assert len(waits) == 1


def test_it_does_without_a_redis_that_accepts_and_says_nothing(
    settings: Settings, waits: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_connection, "TIMEOUT", 0.25)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        kept, figure = cache(), Figure()

        answers = [kept.get(figure.make) for _ in range(20)]

    assert answers == [{"value": 0}] * 20
    assert len(waits) == 1


@pytest.mark.django_db(transaction=True)
def test_the_statistics_are_made_once_a_moment_and_anew_for_who_did_something(api: Client, settings: Settings) -> None:
    redis.Redis.from_url(django_settings.REDIS_URL).flushdb()
    settings.OUTBOX_STATISTICS_SECONDS = 30
    url = "/api/v1/admin/outbox/statistics"

    first = api.get(url).json()
    publish_all("a")
    kept = api.get(url).json()
    api.post("/api/v1/admin/outbox/process", content_type="application/json")
    anew = api.get(url).json()

    assert kept == first
    assert anew["measured_at"] > first["measured_at"]
    assert anew["total_events"] == first["total_events"] + 1
