from __future__ import annotations

import pytest
from django.test import Client

from zenskar import health


@pytest.fixture(autouse=True)
def _fresh_report() -> None:
    health._reports.forget()


@pytest.mark.parametrize("path", ["/livez", "/livez/"])
def test_it_is_alive_without_a_database(client: Client, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 200
    assert response.json() == {"status": "alive"}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/readyz", "/readyz/"])
def test_it_is_ready_when_all_is_there(client: Client, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 200
    report = response.json()
    assert report["components"]["database"]["status"] == "up", report
