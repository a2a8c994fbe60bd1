from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client

from dbresilience.observations.pending import pending
from operations.models import AuditEntry
from operations.readiness import register
from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.feature("A1", "A7", "B9", "B10"), pytest.mark.django_db]

NAMES = ("health", "metrics", "deadlocks", "connection-pool", "connections")


@pytest.fixture(autouse=True)
def nothing_observed() -> None:
    pending.take()


@pytest.mark.parametrize("prefix", ["/api/v1/admin/database", "/admin/database"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_it_answers_json_at_every_address(api: Client, prefix: str, slash: str) -> None:
    answers = {name: api.get(f"{prefix}/{name}{slash}") for name in NAMES}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(NAMES, 200)
    assert {answer["Content-Type"] for answer in answers.values()} == {"application/json"}
    assert {answer["Cache-Control"] for answer in answers.values()} == {"no-store"}


@pytest.mark.parametrize("name", NAMES)
def test_it_needs_the_scope(staff_client: MakeClient, name: str) -> None:
    viewer, nobody = staff_client("viewer"), staff_client()

    assert viewer.get(f"/admin/database/{name}").status_code == 200
    assert nobody.get(f"/admin/database/{name}").status_code == 403
    assert Client().get(f"/admin/database/{name}").status_code == 401


def test_it_tells_health_in_the_documented_shape(api: Client) -> None:
    found: dict[str, Any] = api.get("/admin/database/health").json()

    assert list(found) == ["summary", "connection_pool", "performance", "reliability", "recommendations", "alerts"]
    assert found["summary"]["status"] == "healthy"
    assert found["connection_pool"]["server_connections"] >= 1


@pytest.mark.feature("A2")
def test_it_tells_pool_response_times_error_rates_and_when_it_looked(api: Client) -> None:
    found = api.get("/admin/database/connections").json()

    assert set(found["connection_pool"]) >= {"size", "checked_in", "checked_out", "overflow", "total_connections"}
    assert found["response_times"]["query_ms"] > 0
    assert found["error_rates"] == {"last_hour": 0, "per_hour_24h": 0.0}
    assert found["last_check"].endswith("Z")
    assert found["applications"]


def test_it_diagnoses_and_audits_it(api: Client) -> None:
    found = api.generic("POST", "/admin/database/diagnostics").json()

    results = {finding["check"]: finding["result"] for finding in found["findings"]}
    assert results["reachable"] == "ok"
    assert len(results) == 14
    entry = AuditEntry.objects.get(action="database.diagnosed")
    assert entry.actor.startswith("key:")


def test_it_diagnoses_for_operators_alone(staff_client: MakeClient) -> None:
    refused = staff_client("viewer").generic("POST", "/api/v1/admin/database/diagnostics")
    allowed = staff_client("operator").generic("POST", "/api/v1/admin/database/diagnostics/")

    assert (refused.status_code, allowed.status_code) == (403, 200)


@pytest.mark.parametrize("query", ["hours=0", "hours=many", "hours=169", "days=2", "hours=1&hours=x"])
def test_it_refuses_a_window_that_is_none(api: Client, query: str) -> None:
    answer = api.get(f"/admin/database/deadlocks?{query}")

    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"


def test_it_refuses_a_body_with_fields(api: Client) -> None:
    answer = api.post("/admin/database/diagnostics", {"deep": True}, content_type="application/json")

    assert answer.status_code == 400


@pytest.mark.parametrize("body", ['["a"]', "7", '"text"'])
def test_it_refuses_a_body_that_is_no_object(api: Client, body: str) -> None:
    answer = api.post("/admin/database/diagnostics", body, content_type="application/json")

    assert answer.status_code == 400


def test_it_says_when_the_monitor_cannot_reach_the_database(api: Client) -> None:
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "no_such_database"
    try:
        health, pool = api.get("/admin/database/health"), api.get("/admin/database/connection-pool")
    finally:
        connection.settings_dict["NAME"] = name

    assert health.json()["summary"]["status"] == "unhealthy"
    assert health.json()["alerts"][0]["code"] == "unreachable"
    assert pool.status_code == 503


@pytest.fixture
def components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.readiness._components", {})


@pytest.mark.parametrize("path", ["/admin/health", "/admin/health/", "/api/v1/admin/health"])
def test_it_tells_the_health_of_every_component(api: Client, components: None, path: str) -> None:
    def broken() -> str:
        raise ConnectionRefusedError("10.0.0.7 refused")

    register("cache", lambda: "")
    register("broker", broken)

    found = api.get(path).json()

    assert found["status"] == "degraded"
    assert found["components"]["cache"]["status"] == "up"
    assert found["components"]["broker"]["detail"] == "does not answer (ConnectionRefusedError)"
    assert found["database"]["status"] == "healthy"


def test_it_is_unhealthy_when_a_critical_component_is_down(api: Client, components: None) -> None:
    register("store", lambda: "gone", is_critical=True)

    assert api.get("/admin/health").json()["status"] == "unhealthy"


def test_it_gives_up_on_a_component_that_never_answers(
    api: Client, components: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    done = threading.Event()
    monkeypatch.setattr("operations.health.TIMEOUT", 0.05)
    register("silent", lambda: "" if done.wait(60) else "late")

    found = api.get("/admin/health").json()
    done.set()

    assert found["components"]["silent"]["detail"] == "no answer in time"


@pytest.mark.feature("B8")
def test_it_offers_the_figures_to_prometheus(api: Client) -> None:
    page = api.get("/metrics").content.decode()

    assert "zenskar_database_up 1.0" in page
    assert "zenskar_database_server_max_connections" in page
    assert "zenskar_database_pool_borrowed" not in page or "zenskar_database_pool_size" in page


@pytest.mark.feature("B8")
def test_it_measures_for_prometheus_on_one_connection(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    connect = psycopg.connect

    def noted(*args: Any, **parameters: Any) -> Any:
        made.append(parameters["application_name"])
        return connect(*args, **parameters)

    monkeypatch.setattr(psycopg, "connect", noted)

    page = api.get("/metrics").content.decode()

    assert "zenskar_database_deadlocks_24h 0.0" in page
    assert made == ["zenskar monitor"]


def test_it_tells_prometheus_that_the_database_is_away(settings: Any, client: Client) -> None:
    settings.METRICS_TOKEN = "t" * 40
    name = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "no_such_database"
    try:
        page = client.get("/metrics", headers={"Authorization": f"Bearer {settings.METRICS_TOKEN}"})
    finally:
        connection.settings_dict["NAME"] = name

    assert page.status_code == 200
    assert "zenskar_database_up 0.0" in page.content.decode()
