from __future__ import annotations

import json
import socket
from typing import Any

import pytest
import redis as redis_library
from django.conf import settings as django_settings
from django.test import Client

from operations import redis_connection, throttling
from operations.keys import IssuedKey, apikey_create
from operations.redis_connection import BACK_OFF, PatientRedis
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.operations.probe_urls"), pytest.mark.feature("A16")]


@pytest.fixture(autouse=True)
def _one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still, so that no test straddles two windows; each has a fresh client."""
    monkeypatch.setattr(throttling.time, "time", lambda: 60_000_015.0)
    monkeypatch.setattr(redis_connection, "_shared", {})
    monkeypatch.setattr(redis_connection, "TIMEOUT", 30.0)
    redis_library.Redis.from_url(django_settings.REDIS_URL).flushdb()


@pytest.fixture
def refusing_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def client_of(issued: IssuedKey) -> Client:
    return Client(headers={"Authorization": issued.authorization})


def test_it_says_what_is_left_and_refuses_what_is_too_much() -> None:
    client = client_of(apikey_create(name="small", scopes=["customers:read"], rate_limit=2))

    answers = [client.get("/api/probe") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer["RateLimit"] for answer in answers] == [
        '"default";r=1;t=45',
        '"default";r=0;t=45',
        '"default";r=0;t=45',
    ]
    assert answers[0]["RateLimit-Policy"] == '"default";q=2;w=60'
    assert answers[2]["Retry-After"] == "45"
    assert json.loads(answers[2].content)["code"] == "too_many_requests"


def test_it_counts_each_key_for_itself(settings: Any) -> None:
    settings.API_RATE_LIMIT = 1
    first, second = (client_of(apikey_create(name="k", scopes=["customers:read"])) for _ in range(2))

    assert first.get("/api/probe").status_code == 200
    assert first.get("/api/probe").status_code == 429
    assert second.get("/api/probe").status_code == 200


def test_it_counts_staff_too(settings: Any, staff_client: MakeClient) -> None:
    settings.API_RATE_LIMIT = 1
    client = staff_client("viewer")

    assert client.get("/api/probe").status_code == 200
    assert client.get("/api/probe").status_code == 429


def test_it_starts_anew_in_the_next_window(monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(apikey_create(name="small", scopes=["customers:read"], rate_limit=1))
    client.get("/api/probe")
    refused = client.get("/api/probe")

    monkeypatch.setattr(throttling.time, "time", lambda: 60_000_060.0)

    assert refused.status_code == 429
    assert client.get("/api/probe").status_code == 200


def test_it_leaves_an_unlimited_key_alone() -> None:
    client = client_of(apikey_create(name="free", scopes=["customers:read"], rate_limit=0))

    response = client.get("/api/probe")

    assert response.status_code == 200
    assert not response.has_header("RateLimit")


def test_it_lets_everybody_in_while_redis_is_away(settings: Any, refusing_port: int) -> None:
    settings.REDIS_URL = f"redis://127.0.0.1:{refusing_port}/0"
    client = client_of(apikey_create(name="small", scopes=["customers:read"], rate_limit=1))

    answers = [client.get("/api/probe") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]


def test_it_waits_once_for_a_redis_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "TIMEOUT", 0.25)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        now = [100.0]
        patient = PatientRedis(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", clock=lambda: now[0])
        asked: list[float] = []

        def ping(client: redis_library.Redis) -> bool:
            asked.append(now[0])
            return bool(client.ping())

        answers = [patient.attempt(ping, otherwise=None) for _ in range(1000)]
        now[0] += BACK_OFF
        patient.attempt(ping, otherwise=None)

    assert answers == [None] * 1000
    assert asked == [100.0, 100.0 + BACK_OFF]


def test_it_asks_again_when_redis_is_back(refusing_port: int) -> None:
    now = [100.0]
    patient = PatientRedis(f"redis://127.0.0.1:{refusing_port}/0", clock=lambda: now[0])
    away = patient.attempt(lambda client: client.ping(), otherwise="away")

    patient._client = redis_library.Redis.from_url(django_settings.REDIS_URL)
    too_early = patient.attempt(lambda client: client.ping(), otherwise="away")
    now[0] += BACK_OFF
    back = [patient.attempt(lambda client: client.ping(), otherwise="away") for _ in range(2)]

    assert (away, too_early, back) == ("away", "away", [True, True])
