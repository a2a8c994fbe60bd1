from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from tests.operations.conftest import MakeClient

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.operations.probe_urls"), pytest.mark.feature("A16")]


def assert_problem(response: HttpResponse, status: int, code: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(response.content)
    assert (response.status_code, document["code"]) == (status, code), document
    assert response["Content-Type"] == "application/problem+json"
    assert document["correlation_id"] == response["X-Correlation-ID"]
    assert isinstance(document["errors"], list)
    return document


@pytest.mark.parametrize("address", ["/api/v1/nothing", "/api/nothing/", "/nothing", "/webhooks/nothing"])
def test_it_answers_unknown_addresses_with_a_problem(client: Client, address: str) -> None:
    response = client.get(address)

    assert_problem(response, 404, "not_found")


@pytest.mark.parametrize("address", ["/admin/nothing/", "/nothing/", "/nothing", "/customers-are-here/"])
def test_it_shows_people_a_page_for_unknown_addresses(client: Client, address: str) -> None:
    response = client.get(address, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})

    page = response.content.decode()
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")
    assert response["X-Correlation-ID"] in page and "There is nothing at this address." in page


def test_it_answers_with_a_problem_under_the_api_whoever_asks(client: Client) -> None:
    response = client.get("/api/v1/nothing", headers={"Accept": "text/html"})

    assert_problem(response, 404, "not_found")


def test_it_answers_a_wrong_method(api: Client) -> None:
    response = api.delete("/api/probe")

    assert_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_it_answers_only_json(api: Client) -> None:
    response = api.get("/api/probe", headers={"Accept": "text/csv"})

    assert_problem(response, 406, "not_acceptable")


def test_it_answers_a_violated_constraint_without_the_values(api: Client) -> None:
    response = api.get("/api/duplicate")

    document = assert_problem(response, 409, "duplicate_entry")
    assert document["field"] == "name"
    assert [(error["pointer"], error["code"]) for error in document["errors"]] == [("/name", "duplicate_entry")]
    assert "twice" not in response.content.decode()


def test_it_answers_a_value_that_no_validator_caught(api: Client) -> None:
    response = api.get("/api/unstorable")

    assert_problem(response, 400, "invalid_value")


@pytest.mark.parametrize("address", ["/api/away", "/plain-away"])
def test_it_says_when_the_database_is_away_and_names_no_host(client: Client, address: str) -> None:
    response = client.get(address)

    assert_problem(response, 503, "database_unavailable")
    assert response["Retry-After"] == "1"
    assert "db-17" not in response.content.decode()


def test_it_tells_nothing_about_a_fault_of_its_own() -> None:
    client = Client(raise_request_exception=False)

    response = client.get("/api/crash")

    assert_problem(response, 500, "internal_error")
    assert "hunter2" not in response.content.decode()


def test_it_refuses_an_unknown_host(client: Client, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["zenskar.example"]

    response = client.get("/api/probe", headers={"Host": "evil.example"})

    assert_problem(response, 400, "bad_request")


def test_it_wants_the_csrf_token_with_a_session(staff_client: MakeClient) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = staff_client("operator").cookies

    response = strict.post("/api/probe", data=b'{"name": "a"}', content_type="application/json")

    assert_problem(response, 403, "csrf_failed")


def test_it_takes_the_callers_correlation_id(client: Client) -> None:
    response = client.get("/api/nothing", headers={"X-Correlation-ID": "order-17"})

    assert assert_problem(response, 404, "not_found")["correlation_id"] == "order-17"


def test_it_makes_its_own_when_the_callers_is_not_plain(client: Client) -> None:
    response = client.get("/api/nothing", headers={"X-Correlation-ID": "a b<script>"})

    assert len(assert_problem(response, 404, "not_found")["correlation_id"]) == 36


@pytest.mark.feature("A16")
@pytest.mark.parametrize("method", ["TRACE", "PROPFIND"])
def test_a_method_that_an_address_does_not_take_is_a_problem(client: Client, method: str) -> None:
    answer = client.generic(method, "/")

    assert (answer.status_code, answer["Content-Type"]) == (405, "application/problem+json")
    assert answer.json()["code"] == "method_not_allowed"
    assert "GET" in answer["Allow"]


def test_people_get_a_page_for_it(client: Client) -> None:
    answer = client.generic("TRACE", "/", headers={"Accept": "text/html"})

    assert (answer.status_code, answer["Content-Type"]) == (405, "text/html; charset=utf-8")
    assert "This address takes" in answer.content.decode()
