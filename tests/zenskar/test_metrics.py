from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from operations.keys import apikey_create
from operations.metrics import SCRAPED

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A13")]

SCRAPE = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"

COUNT_IN_TWO_PROCESSES = """
import os, sys
from operations.metrics import HTTP_REQUESTS, metrics_page
for _ in range(int(sys.argv[1])):
    HTTP_REQUESTS.labels("GET", "here", "200").inc()
if sys.argv[2] == "print":
    sys.stdout.write(metrics_page()[0].decode())
"""


def scrape(token: str | None) -> Any:
    headers = {"Accept": SCRAPE} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    return Client().get("/metrics", headers=headers)


def test_it_wants_a_token() -> None:
    response = scrape(None)

    assert (response.status_code, json.loads(response.content)["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("token", ["", "wrong", "s3cret-t", "s3cret-token-and-more", "é"])
def test_it_refuses_a_wrong_token(settings: Any, token: str) -> None:
    settings.METRICS_TOKEN = "s3cret-token"

    assert scrape(token).status_code == 401


def test_it_takes_no_empty_token_where_none_is_set(settings: Any) -> None:
    settings.METRICS_TOKEN = ""

    assert scrape("").status_code == 401


def test_it_takes_the_token_of_the_deployment(settings: Any) -> None:
    settings.METRICS_TOKEN = "s3cret-token"

    response = scrape("s3cret-token")

    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    assert list(text_string_to_metric_families(response.content.decode()))


def test_it_takes_a_key_with_the_scope_alone() -> None:
    right = apikey_create(name="prometheus", scopes=["metrics:read"])
    wrong = apikey_create(name="shop", scopes=["customers:read"])

    assert scrape(right.token).status_code == 200
    assert scrape(wrong.token).status_code == 403


def test_it_counts_answers_by_route_and_not_by_address(settings: Any) -> None:
    settings.METRICS_TOKEN = "s3cret-token"
    client = Client()
    for number in range(3):
        client.get(f"/api/v1/customers/{number}")
        client.get(f"/nothing-{number}")

    page = scrape("s3cret-token").content.decode()

    routes = set(re.findall(r'zenskar_http_requests_total\{[^}]*route="([^"]*)"', page))
    assert "api/v1/customers/<str:customer_id>" in routes
    assert "none" in routes
    assert not any("nothing-" in route for route in routes)


def test_it_adds_up_all_web_processes(tmp_path: Path) -> None:
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def process(times: int, verb: str) -> str:
        command = [sys.executable, "-c", COUNT_IN_TWO_PROCESSES, str(times), verb]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout

    process(3, "count")
    page = process(4, "print")

    assert 'zenskar_http_requests_total{method="GET",route="here",status="200"} 7.0' in page


class BrokenCollector(Collector):
    def collect(self) -> Iterable[Metric]:
        raise OperationalError("connection refused")


def test_it_still_gives_its_counters_while_the_database_is_away(settings: Any) -> None:
    settings.METRICS_TOKEN = "s3cret-token"
    broken = BrokenCollector()
    broken.describe = list  # type: ignore[attr-defined]
    SCRAPED.register(broken)

    try:
        response = scrape("s3cret-token")
    finally:
        SCRAPED.unregister(broken)

    assert response.status_code == 200
    page = response.content.decode()
    assert re.search(r"zenskar_scrape_errors_total [1-9]", page)
