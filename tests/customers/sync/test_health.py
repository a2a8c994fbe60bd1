"""``GET …/sync-health``: where a customer stands, as of the last look and now."""

from __future__ import annotations

from typing import Any

import pytest

from customers.models import Customer
from customers.services import customer_create, customer_delete, customer_update
from tests.customers.conftest import Api
from tests.customers.sync.conftest import Side

pytestmark = [pytest.mark.django_db, pytest.mark.feature("C1", "G1")]


def health(api: Api, customer: Customer, query: str = "") -> Any:
    response = api.get(f"/api/v1/customers/{customer.pk}/sync-health{query}")
    assert response.status_code == 200, response.content
    return response.json()["integrations"]["memory"]


def test_it_shows_a_customer_that_nobody_has_looked_at(side: Side, reader: Api) -> None:
    found = health(reader, customer_create(name="Ada"))

    assert (found["status"], found["remote_id"], found["being_looked_at"]) == ("pending", None, False)
    assert found["dirty_since"] is not None
    assert found["drift"]["remote"] == "unlinked"


def test_it_shows_a_customer_at_rest(side: Side, reader: Api) -> None:
    customer = side.linked(name="Ada")

    found = health(reader, customer)

    assert (found["status"], found["remote_id"]) == ("in_sync", side.state(customer).remote_id)
    assert (found["dirty_since"], found["last_error"], found["request_in_flight"]) == (None, None, None)
    assert found["last_success_at"] is not None
    assert found["drift"]["fields"] == []


def test_it_shows_the_request_in_flight_the_error_and_what_waits(side: Side, reader: Api) -> None:
    customer = side.linked(name="Ada")
    customer_update(customer_id=customer.pk, changes={"name": "Ada L."})
    side.poke()
    side.world.lose_requests(1, method="update")
    side.sync(customer)

    found = health(reader, customer)

    assert (found["status"], found["attempts"], found["priority"]) == ("retrying", 1, "interactive")
    assert found["next_attempt_at"] is not None
    assert found["last_error"] == {"class": "outage", "code": "planted", "message": "planted"}
    assert (found["request_in_flight"]["method"], found["request_in_flight"]["sends"]) == ("update", 1)
    assert found["drift"]["fields"] == [
        {"field": "name", "changed": "here", "base": "Ada", "ours": "Ada L.", "theirs": "Ada"}
    ]


def test_it_sees_drift_there_only_when_it_is_told_to_look(side: Side, reader: Api) -> None:
    customer = side.linked(name="Ada")
    side.world.edit(side.state(customer).remote_id or "", phone="1")
    side.world.messages.clear()
    side.world.calls.clear()

    known, calls = health(reader, customer), len(side.world.calls)
    live = health(reader, customer, "?live=true")

    assert (known["drift"]["fields"], calls) == ([], 0)
    assert live["drift"]["remote"] == "present"
    assert live["drift"]["fields"] == [
        {"field": "phone", "changed": "there", "base": None, "ours": None, "theirs": "1"}
    ]
    assert [call.method for call in side.world.calls] == ["retrieve"]


@pytest.mark.parametrize("fate", ["deleted", "missing"])
def test_it_says_when_the_record_is_gone(side: Side, reader: Api, fate: str) -> None:
    customer = side.linked(name="Ada")
    remote_id = side.state(customer).remote_id or ""
    if fate == "deleted":
        side.world.remove(remote_id)
    else:
        del side.world.records[remote_id]

    assert health(reader, customer, "?live=true")["drift"]["remote"] == fate


def test_it_answers_also_when_the_integration_does_not(side: Side, reader: Api) -> None:
    customer = side.linked(name="Ada")
    side.world.lose_requests(1)

    drift = health(reader, customer, "?live=true")["drift"]

    assert (drift["remote"], drift["error"]["class"]) == ("unknown", "outage")


def test_it_shows_a_deletion_under_way(side: Side, reader: Api) -> None:
    customer = side.linked(name="Ada")
    customer_delete(customer_id=customer.pk)
    side.poke()

    response = reader.get(f"/customers/{customer.pk}/sync-health/")

    assert response.status_code == 200
    assert response.json()["deleted_at"] is not None
    assert response.json()["integrations"]["memory"]["dirty_since"] is not None


@pytest.mark.parametrize(
    ("customer", "query", "status"),
    [
        ("01900000-0000-7000-8000-000000000000", "", 404),
        ("nobody", "", 404),
        ("known", "?live=yes", 400),
        ("known", "?live=", 400),
        ("known", "?alive=true", 400),
    ],
)
def test_it_refuses_what_makes_no_sense(side: Side, reader: Api, customer: str, query: str, status: int) -> None:
    found = str(side.linked(name="Ada").pk) if customer == "known" else customer

    response = reader.get(f"/api/v1/customers/{found}/sync-health{query}")

    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"


def test_it_is_for_those_who_may_read_customers(side: Side, db: None) -> None:
    customer = side.linked(name="Ada")

    answer = Api("operations:read").get(f"/api/v1/customers/{customer.pk}/sync-health")

    assert answer.status_code == 403
