from __future__ import annotations

from typing import Any

import pytest

from customers.models import Customer, SyncState
from tests.customers.published import published

pytestmark = pytest.mark.django_db

CUSTOMERS = "/api/v1/customers/"


@pytest.fixture
def customer(api: Any) -> Any:
    return api.post(CUSTOMERS, {"name": "Ann"})


@pytest.fixture
def path(customer: Any) -> str:
    return f"{CUSTOMERS}{customer.json()['id']}/"


def synced(path: str) -> None:
    SyncState.objects.create(
        customer_id=path.split("/")[-2], integration="stripe", livemode=False, status="in_sync", remote_id="cus_1"
    )


def test_it_tags_each_representation_strongly(api: Any, customer: Any, path: str) -> None:
    first = api.get(path)["ETag"]
    synced(path)
    second = api.get(path)["ETag"]
    third = api.patch(path, {"name": "Anne"})["ETag"]

    assert first == customer["ETag"]
    assert len({first, second, third}) == 3
    assert third == api.get(path)["ETag"]
    assert not any(tag.startswith("W/") for tag in (first, second, third))


def test_it_answers_304_while_the_representation_is_the_same(api: Any, customer: Any, path: str) -> None:
    tag = customer["ETag"]

    same = api.get(path, If_None_Match=f'"other", {tag}')
    weak = api.get(path, If_None_Match=f"W/{tag}")
    synced(path)
    moved_on = api.get(path, If_None_Match=tag)

    assert (same.status_code, same.content, same["ETag"]) == (304, b"", tag)
    assert weak.status_code == 304
    assert moved_on.status_code == 200


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_it_refuses_a_change_of_a_stale_representation(api: Any, customer: Any, path: str, method: str) -> None:
    api.patch(path, {"name": "Anne"})

    answer = api(method, path, {"name": "Late", "email": None}, If_Match=customer["ETag"])

    assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    assert answer["Content-Type"] == "application/problem+json"
    row = Customer.objects.get()
    assert (row.name, row.version, row.deleted_at, len(published())) == ("Anne", 2, None, 2)


def test_it_does_not_call_an_edit_stale_because_a_sync_moved_on(api: Any, customer: Any, path: str) -> None:
    synced(path)

    answer = api.patch(path, {"name": "Anne"}, If_Match=customer["ETag"])

    assert (answer.status_code, answer.json()["version"]) == (200, 2)


@pytest.mark.parametrize("header", ["*", '"1"', '"not-ours", "1-0123456789ab"'])
def test_it_makes_a_change_of_the_version_that_was_read(api: Any, path: str, header: str) -> None:
    answer = api.patch(path, {"name": "Anne"}, If_Match=header)

    assert answer.status_code == 200


@pytest.mark.parametrize("header", ['W/"1"', '"abc"', '"2"', '"99999999999999999999"', '""'])
def test_it_refuses_tags_that_do_not_match(api: Any, path: str, header: str) -> None:
    answer = api.patch(path, {"name": "Anne"}, If_Match=header)

    assert answer.status_code == 412
    assert Customer.objects.get().name == "Ann"


@pytest.mark.parametrize("header", ["", "1", "'1'", '"1', '"1" "2"', "*, *", '"1",', "x" * 5000])
def test_it_refuses_malformed_preconditions(api: Any, path: str, header: str) -> None:
    answer = api.patch(path, {"name": "Anne"}, If_Match=header)

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_precondition")
    assert Customer.objects.get().name == "Ann"
