from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from operations.keys import apikey_create
from operations.long_actions.runner import operations_run_once
from operations.models import AuditEntry, Operation
from tests.operations.conftest import MakeClient
from tests.operations.long_actions.acting import Acting, acted, numbers_make, refusing
from tests.operations.long_actions.conftest import planned, started

pytestmark = [pytest.mark.feature("H4", "A1", "C16")]

URL = "/api/v1/admin/operations"


def post(client: Client, address: str, **body: Any) -> Any:
    return client.post(address, body, content_type="application/json")


def create(client: Client, **changes: Any) -> Any:
    body = {"kind": Acting.name, "filter": {"up_to": 10}, "reason": "because"} | changes
    return post(client, f"{URL}/", **body)


@pytest.mark.parametrize("slash", ["", "/"])
def test_it_plans_starts_and_shows_progress(acting: Acting, api: Client, slash: str) -> None:
    numbers_make(10, odd=[2])
    acting.refuse = refusing(3)

    answer = api.post(
        URL + slash, {"kind": Acting.name, "filter": {"up_to": 10}, "reason": "b", "canary": 0}, "application/json"
    )
    place = f"{URL}/{answer.json()['id']}"
    start = post(api, f"{place}/start{slash}")
    operations_run_once()
    shown = api.get(place + slash).json()
    items = api.get(f"{place}/items{slash}?state=failed").json()

    assert (answer.status_code, answer.json()["state"]) == (201, "planned")
    assert answer["Location"].endswith(f"{place}/")
    assert answer.json()["plan"] == {"eligible": 9, "ineligible": {"odd one out": 1}}
    assert (start.status_code, start.json()["state"]) == (200, "running")
    assert shown["state"] == "completed"
    assert shown["progress"] == {
        "items": 9,
        "begun": 9,
        "waiting": 0,
        "succeeded": 8,
        "failed": 1,
        "skipped": 0,
        "percent": 100.0,
    }
    assert [(item["key"], item["code"]) for item in items["results"]] == [("3", "refused")]


def test_it_counts_only_in_a_dry_run(acting: Acting, api: Client) -> None:
    numbers_make(10)

    answer = create(api, dry_run=True, reason="")

    assert answer.status_code == 200
    assert answer.json() == {
        "kind": Acting.name,
        "filter": {"up_to": 10},
        "plan": {"eligible": 10, "ineligible": {}},
        "sample": ["1", "2"],
    }
    assert not Operation.objects.exists()
    assert not AuditEntry.objects.filter(action__startswith="operation.").exists()


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"kind": "no.such"}, "/kind"),
        ({"kind": "x" * 61}, "/kind"),
        ({"filter": {"up_to": -1}}, "/filter/up_to"),
        ({"filter": {"up_to": 1, "down_to": 2}}, "/filter/down_to"),
        ({"filter": []}, "/filter"),
        ({"reason": "  "}, "/reason"),
        ({"reason": "x" * 501}, "/reason"),
        ({"canary": -1}, "/canary"),
        ({"rate": 0}, "/rate"),
        ({"rate": "quick"}, "/rate"),
        ({"ramp_seconds": 5}, "/ramp_seconds"),
        ({"stop_error_rate": 0}, "/stop_error_rate"),
        ({"stop_error_rate": 1.1}, "/stop_error_rate"),
        ({"speed": 1}, "/speed"),
    ],
)
def test_it_refuses_what_makes_no_sense(acting: Acting, api: Client, changes: dict[str, Any], pointer: str) -> None:
    answer = create(api, **changes)

    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert not Operation.objects.exists()


@pytest.mark.parametrize("number", ["0", "99999999", "9" * 30, "x", "-1", "1e3", "٣"])
@pytest.mark.parametrize("place", ["", "/items", "/start"])
def test_it_knows_what_it_does_not_have(acting: Acting, api: Client, number: str, place: str) -> None:
    address = f"{URL}/{number}{place}"

    answer = post(api, address) if place == "/start" else api.get(address)

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "query", ["cursor=x", "page_size=0", "page_size=501", "state=done", "colour=red", "cursor=MQ:x:y"]
)
@pytest.mark.parametrize("place", ["/", "/{}/items/"])
def test_it_refuses_bad_queries(acting: Acting, api: Client, query: str, place: str) -> None:
    answer = api.get(f"{URL}{place.format(planned().pk)}?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_failed")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_it_refuses_what_the_state_does_not_allow(acting: Acting, api: Client, verb: str) -> None:
    answer = post(api, f"{URL}/{planned().pk}/{verb}/")

    assert (answer.status_code, answer.json()["code"]) == (409, "operation_state")


def test_it_steers_and_does_not_mind_a_repeat(acting: Acting, api: Client) -> None:
    operation = started()
    place = f"{URL}/{operation.pk}"

    verbs = ("pause", "pause", "resume", "resume", "cancel", "cancel")
    states = [post(api, f"{place}/{verb}/", note="n").json()["state"] for verb in verbs]

    assert states == ["paused", "paused", "running", "running", "cancelled", "cancelled"]
    actions = AuditEntry.objects.filter(target=f"operation:{operation.pk}", actor__startswith="key:")
    assert list(actions.order_by("pk").values_list("action", flat=True)) == [
        "operation.paused",
        "operation.resumed",
        "operation.cancelled",
    ]
    assert post(api, f"{place}/start/").status_code == 409
    operations_run_once()
    assert acted() == []


def test_it_pages_operations_and_items(acting: Acting, api: Client) -> None:
    numbers_make(7)
    ids = [started(up_to=7).pk for _ in range(3)]
    operations_run_once()

    first = api.get(f"{URL}/?page_size=2").json()
    second = api.get(first["next"]).json()
    page = api.get(f"{URL}/{ids[0]}/items/?page_size=5&state=succeeded").json()
    rest = api.get(page["next"]).json()

    assert [row["id"] for row in first["results"] + second["results"]] == ids[::-1]
    assert second["next"] is None
    assert [row["key"] for row in page["results"] + rest["results"]] == list("1234567")


def test_it_lists_the_kinds(acting: Acting, api: Client) -> None:
    kinds = api.get(f"{URL}/kinds/").json()["results"]

    assert {
        "name": "tests.act",
        "title": "Act upon numbers",
        "transactional": True,
        "scope": "operations:write",
    } in kinds


def test_it_asks_keys_for_their_scope(acting: Acting) -> None:
    reader = apikey_create(name="reader", scopes=["operations:read"])
    other = apikey_create(name="other", scopes=["customers:write"])
    operation = planned()

    read, write = (
        Client(headers={"Authorization": reader.authorization}),
        create(Client(headers={"Authorization": reader.authorization})),
    )

    assert read.get(f"{URL}/{operation.pk}").status_code == 200
    assert write.status_code == 403
    assert post(read, f"{URL}/{operation.pk}/start").status_code == 403
    assert Client(headers={"Authorization": other.authorization}).get(URL).status_code == 403


def test_it_asks_for_the_scope_of_the_kind(acting: Acting, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Acting, "scope", "customers:write")
    key = apikey_create(name="ops", scopes=["operations:read", "operations:write"])
    client = Client(headers={"Authorization": key.authorization})
    operation = planned()

    assert create(client).status_code == 403
    assert post(client, f"{URL}/{operation.pk}/start/").status_code == 403
    assert post(client, f"{URL}/{operation.pk}/cancel/").status_code == 200
    assert create(api).status_code == 201


def test_it_asks_people_for_each_permission(
    acting: Acting, staff_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, operator = staff_client("viewer"), staff_client("operator")

    assert create(viewer).status_code == 403
    assert create(operator).status_code == 201
    monkeypatch.setattr(Acting, "permission", "operations.revoke_apikey")
    assert create(operator).status_code == 403
    assert create(operator, dry_run=True).status_code == 403
