from __future__ import annotations

import pytest
from django.test import Client

from tests.operations.conftest import api, issued

__all__ = ["api", "issued"]
pytestmark = [pytest.mark.django_db, pytest.mark.feature("A16")]


@pytest.mark.parametrize(
    "address", ["operations/", "troubles/", "troubles/groups/", "outbox/dead-letter", "outbox/pending"]
)
def test_it_refuses_a_parameter_that_is_given_twice(api: Client, address: str) -> None:
    answer = api.get(f"/api/v1/admin/{address}?page_size=1&page_size=2")

    assert answer.status_code == 400
    assert "page_size" in str(answer.json()["errors"])


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("br", 415), ("identity", 201), (" Identity ", 201)])
def test_it_takes_bodies_as_they_are_alone(api: Client, encoding: str, status: int) -> None:
    headers = {"Content-Encoding": encoding}

    answer = api.post("/api/v1/customers/", {"name": "Ada"}, "application/json", headers=headers)

    assert answer.status_code == status


@pytest.mark.parametrize("name", ["live", "colour"])
def test_it_names_a_parameter_of_sync_health_as_a_parameter(api: Client, name: str) -> None:
    answer = api.get(f"/api/v1/customers/019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f/sync-health/?{name}=x")

    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["parameter"]) == (400, name)
