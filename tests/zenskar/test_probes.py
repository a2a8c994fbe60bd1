from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connections
from django.test import Client

from operations import readiness
from zenskar import health

pytestmark = pytest.mark.feature("A13")


@pytest.fixture(autouse=True)
def _fresh_report() -> Iterator[None]:
    health._reports.forget()
    yield
    health._reports.forget()


@pytest.fixture
def nobody() -> int:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize("path", ["/livez", "/livez/"])
def test_it_is_alive_without_a_database(client: Client, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 200
    assert response.json() == {"status": "alive"}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/readyz", "/readyz/"])
def test_it_says_that_the_servers_it_needs_are_there(client: Client, path: str) -> None:
    response = client.get(path)

    components = response.json()["components"]
    assert response.status_code == 200
    assert {name: components[name]["status"] for name in ("database", "redis", "kafka")} == {
        "database": "up",
        "redis": "up",
        "kafka": "up",
    }


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("setting", "value", "missing"),
    [
        ("REDIS_URL", "redis://127.0.0.1:{port}/0", "redis"),
        ("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:{port}", "kafka"),
        ("KAFKA_BOOTSTRAP_SERVERS", "", "kafka"),
        ("KAFKA_BOOTSTRAP_SERVERS", "no-port", "kafka"),
    ],
)
def test_it_names_what_is_missing_and_stays_in_service(
    client: Client, settings: Any, nobody: int, setting: str, value: str, missing: str
) -> None:
    setattr(settings, setting, value.format(port=nobody))

    response = client.get("/readyz")

    report = response.json()
    assert response.status_code == 200
    assert report["status"] == "degraded"
    assert missing in report["missing"]
    assert str(nobody) not in response.content.decode()


@pytest.mark.django_db
def test_it_goes_out_of_service_without_the_database(
    client: Client, monkeypatch: pytest.MonkeyPatch, nobody: int
) -> None:
    wrapper = connections["default"]
    parameters = {**wrapper.get_connection_params(), "port": nobody}
    monkeypatch.setattr(wrapper, "get_connection_params", lambda: parameters)
    monkeypatch.setattr(health, "connections", {"default": wrapper})

    response = client.get("/readyz")

    report = response.json()
    assert response.status_code == 503
    assert report["status"] == "unavailable"
    assert "database" in report["missing"]
    assert str(nobody) not in response.content.decode()


@pytest.mark.django_db
def test_it_tries_the_database_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = psycopg.connect
    attempts: list[int] = []

    def flaky(*arguments: Any, **parameters: Any) -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            raise psycopg.OperationalError("terminating connection due to administrator command")
        return connect(*arguments, **parameters)

    monkeypatch.setattr(health.psycopg, "connect", flaky)

    assert health.database_check() == ""
    assert len(attempts) == 2


@pytest.mark.django_db
def test_it_answers_when_a_server_accepts_and_says_nothing(client: Client, settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.REDIS_URL = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"

        response = client.get("/readyz")

    assert "redis" in response.json()["missing"]


@pytest.mark.django_db
def test_it_asks_once_however_many_ask_it(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(readiness, "_components", {})
    readiness.register("counted", lambda: asked.append(1) or "")
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait(timeout=60)
        Client().get("/readyz")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)

    assert asked == [1]


@pytest.mark.django_db
def test_it_shows_what_apps_say_and_hides_what_they_raise(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(readiness, "_components", {})
    readiness.register("relay", lambda: "has not run for 12 s")
    readiness.register("broken", broken)

    response = client.get("/readyz")

    components = response.json()["components"]
    assert response.status_code == 200
    assert components["relay"]["detail"] == "has not run for 12 s"
    assert components["broken"]["detail"] == "does not answer"
    assert "hunter2" not in response.content.decode()


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_it_caches_no_probe(client: Client, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_components", {})

    response = client.get(path)

    assert "no-store" in response["Cache-Control"]
