from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.test import Client

from tests.operations.conftest import MakeClient

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.yaml"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("openapi") / "openapi.yaml"
    call_command("spectacular", file=str(target), validate=True, fail_on_warn=True)
    return target.read_text()


def test_it_is_the_description_that_was_committed(generated: str) -> None:
    assert COMMITTED.read_text() == generated, "Run: manage.py spectacular --file docs/openapi.yaml"


def test_it_describes_every_problem(generated: str) -> None:
    document: dict[str, Any] = yaml.safe_load(generated)

    answers = [
        (status, answer)
        for operations in document["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
    ]
    assert answers
    for status, answer in answers:
        expected = [] if status == "304" else ["application/json"] if status < "400" else ["application/problem+json"]
        assert list(answer.get("content", {})) in ([], expected) if status < "400" else expected


def test_it_asks_for_credentials_everywhere(generated: str) -> None:
    document: dict[str, Any] = yaml.safe_load(generated)

    for operations in document["paths"].values():
        for operation in operations.values():
            assert {next(iter(scheme)) for scheme in operation["security"]} == {"apiKey", "staffSession"}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/schema", "/api/schema/"])
def test_it_serves_the_description(api: Client, path: str) -> None:
    answers = [api.get(path, headers={"Accept": kind}) for kind in ("*/*", "application/json", "text/html, */*;q=0.8")]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "/api/v1/customers/" in answers[1].json()["paths"]


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/docs", "/api/docs/"])
def test_it_shows_staff_a_page_that_loads_from_here_alone(staff_client: MakeClient, path: str) -> None:
    client = staff_client("viewer")

    response = client.get(path, headers={"Accept": "text/html"})

    page = response.content.decode()
    assert response.status_code == 200
    assert 'data-schema="/api/schema"' in page
    for line in page.splitlines():
        for name in ("src=", "href="):
            if name in line:
                asset = line.split(name)[1].split('"')[1]
                assert asset.startswith("/"), line
                answer = client.get(asset)
                if answer.streaming:
                    b"".join(answer.streaming_content)
                assert answer.status_code == 200, asset


@pytest.mark.django_db
def test_it_sends_a_browser_to_the_login_and_back(client: Client) -> None:
    response = client.get("/api/docs/", headers={"Accept": "text/html"})

    assert response.status_code == 302
    assert response["Location"] == "/admin/login/?next=%2Fapi%2Fdocs%2F"
