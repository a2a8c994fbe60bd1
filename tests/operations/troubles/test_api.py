from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from operations.keys import apikey_create
from operations.models import AuditEntry, TroubleNote
from tests.operations.conftest import MakeClient
from tests.operations.troubles.conftest import Leaks

pytestmark = [pytest.mark.django_db, pytest.mark.feature("A12", "H4")]

URL = "/api/v1/admin/troubles"


def post(client: Client, address: str, **body: Any) -> Any:
    return client.post(address, body, content_type="application/json")


@pytest.mark.parametrize("slash", ["", "/"])
def test_it_lists_what_needs_a_person(leaks: Leaks, api: Client, slash: str) -> None:
    found = api.get(f"{URL}{slash}?source=leaks&page_size=3").json()
    pages = [found["results"]]
    while found["next"]:
        found = api.get(found["next"]).json()
        pages.append(found["results"])

    assert [[row["id"] for row in page] for page in pages] == [["7", "6", "5"], ["4", "3", "2"], ["1"]]
    assert pages[0][0] == {
        "source": "leaks",
        "id": "7",
        "group": "drip",
        "state": "open",
        "about": "pipe 7",
        "code": "drip",
        "message": "wet",
        "since": "2026-03-01T12:00:00Z",
    }


def test_it_lists_one_kind(leaks: Leaks, api: Client) -> None:
    assert [row["id"] for row in api.get(f"{URL}/?group=burst").json()["results"]] == ["6", "4", "2"]


def test_it_groups_and_remembers_who_looks_after_them(leaks: Leaks, api: Client) -> None:
    answer = api.put(
        f"{URL}/notes/",
        {"source": "leaks", "group": "burst", "owner": "ann", "note": "known", "snoozed_until": "2999-01-01T00:00:00Z"},
        content_type="application/json",
    )
    groups = api.get(f"{URL}/groups/?source=leaks").json()["results"]
    awake = api.get(f"{URL}/groups/?source=leaks&snoozed=false").json()["results"]

    assert answer.status_code == 200
    assert [(row["group"], row["count"], row["owner"]) for row in groups] == [("burst", 3, "ann"), ("drip", 4, "")]
    assert groups[0]["hours"][-2:] == [1, 3]
    assert [row["group"] for row in awake] == ["drip"]
    assert AuditEntry.objects.get(action="trouble.noted").target == "trouble:leaks:burst"


def test_it_has_chosen_ones_tried_again(leaks: Leaks, api: Client) -> None:
    answer = post(api, f"{URL}/retries/", source="leaks", ids=["1", "3", "99", "x"], reason="mended")

    assert answer.json() == {"retried": ["1", "3"], "not_retried": ["99", "x"]}
    assert AuditEntry.objects.get(action="leak.mended").detail == {"ids": ["1", "3"], "reason": "mended"}


def test_it_has_a_kind_tried_again(leaks: Leaks, api: Client) -> None:
    answer = post(api, f"{URL}/retries", source="leaks", group="burst")

    assert answer.json() == {"retried": ["6", "4", "2"], "not_retried": []}
    assert set(leaks.open.values()) == {"drip"}


@pytest.mark.parametrize(
    "query", ["source=no", "page_size=0", "cursor=x", "colour=red", "group=" + "x" * 201, "cursor=MQ:x:y"]
)
def test_it_refuses_bad_queries(leaks: Leaks, api: Client, query: str) -> None:
    answer = api.get(f"{URL}/?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"source": "no", "ids": ["1"]},
        {"source": "leaks"},
        {"source": "leaks", "ids": [], "reason": ""},
        {"source": "leaks", "ids": ["1"], "group": "drip"},
        {"source": "leaks", "ids": [["1"]]},
        {"source": "leaks", "ids": ["1"] * 1001},
        {"source": "leaks", "ids": ["1"], "why": "x"},
    ],
)
def test_it_refuses_retries_that_say_nothing_clear(leaks: Leaks, api: Client, body: dict[str, Any]) -> None:
    answer = post(api, f"{URL}/retries/", **body)

    assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
    assert len(leaks.open) == 7


def test_it_keeps_no_note_on_what_is_not_there(leaks: Leaks, api: Client) -> None:
    body = {"source": "leaks", "group": "flood", "owner": "ann"}

    answer = api.put(f"{URL}/notes/", body, content_type="application/json")

    assert answer.status_code == 404
    assert not TroubleNote.objects.exists()


def test_it_asks_for_permissions(leaks: Leaks, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer, operator = staff_client("viewer"), staff_client("operator")
    reader = apikey_create(name="r", scopes=["operations:read"])
    key = Client(headers={"Authorization": reader.authorization})

    assert viewer.get(f"{URL}/groups/").status_code == 200
    assert post(viewer, f"{URL}/retries/", source="leaks", ids=["1"]).status_code == 403
    assert post(key, f"{URL}/retries/", source="leaks", ids=["1"]).status_code == 403
    monkeypatch.setattr(Leaks, "view_permission", "operations.revoke_apikey")
    monkeypatch.setattr(Leaks, "retry_permission", "operations.revoke_apikey")
    assert operator.get(f"{URL}/?source=leaks").status_code == 403
    assert "leaks" not in {row["source"] for row in operator.get(f"{URL}/").json()["results"]}
    assert post(operator, f"{URL}/retries/", source="leaks", ids=["1"]).status_code == 403
    assert len(leaks.open) == 7
