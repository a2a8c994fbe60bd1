"""Protected changes through the API: an answer when both sides have it, or when neither has."""

from __future__ import annotations

import pytest

from customers.models import Customer, Saga, SyncState
from customers.services import customer_create
from tests.customers.conftest import Api
from tests.customers.published import published
from tests.customers.sagas.conftest import PROTECTED, nothing_is_left, saga_of, steps_of
from tests.customers.sync.conftest import Side

pytestmark = [pytest.mark.feature("C14", "C11"), pytest.mark.django_db(transaction=True)]

URL = "/api/v1/customers/"
ADA = {"name": "Ada", "email": "ada@example.com", "metadata": {"plan": "gold"}}


def test_it_answers_a_create_when_the_integration_has_the_customer(side: Side, api: Api) -> None:
    answer = api.post(URL, ADA, **PROTECTED)

    body = answer.json()
    assert answer.status_code == 201, body
    assert answer["Location"] == f"http://testserver/api/v1/customers/{body['id']}/"
    (record,) = side.world.living()
    assert record.fields == {"name": "Ada", "email": "ada@example.com", "metadata.plan": "gold"}
    assert record.reference == body["id"]
    assert body["integrations"]["memory"] == {"status": "in_sync", "remote_id": record.remote_id}
    assert [event.type for event in published()] == ["customer.created"]
    assert api.get(answer["Location"]).json() == body
    saga = Saga.objects.get()
    assert (saga.status, steps_of(saga)) == (
        "done",
        [("reserve", "done"), ("remote memory", "done"), ("local", "done")],
    )
    nothing_is_left()


def test_the_poke_of_a_protected_change_sends_nothing(side: Side, api: Api) -> None:
    api.post(URL, ADA, **PROTECTED)
    before = len(side.world.writes())

    side.rest()

    assert len(side.world.writes()) == before == 1
    assert [event.type for event in published()] == ["customer.created"]
    assert SyncState.objects.get().status == SyncState.Status.IN_SYNC


def test_it_answers_an_update_when_the_integration_has_it(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada", email="ada@example.com")

    answer = api.patch(f"{URL}{customer.pk}", {"name": "Ada L.", "metadata": {"plan": "gold"}}, **PROTECTED)

    assert answer.status_code == 200, answer.json()
    assert answer.json()["name"] == "Ada L."
    assert answer["ETag"].startswith('"2-')
    assert side.remote(customer) == {"name": "Ada L.", "email": "ada@example.com", "metadata.plan": "gold"}
    side.rest()
    assert len([call for call in side.world.writes() if call.changed]) == 2
    nothing_is_left()


def test_it_answers_a_deletion_when_the_integration_has_deleted(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada")

    answer = api.delete(f"{URL}{customer.pk}", **PROTECTED)

    customer.refresh_from_db()
    assert (answer.status_code, answer.content) == (204, b"")
    assert side.world.living() == []
    assert customer.deleted_at is not None
    assert side.state(customer).status == SyncState.Status.DELETED
    side.rest()
    assert len([call for call in side.world.calls if call.method == "delete"]) == 1
    nothing_is_left()


def test_without_the_header_it_answers_at_once(side: Side, api: Api) -> None:
    answers = [api.post(URL, ADA), api.post(URL, {"name": "Bob"}, X_Use_Integrity_Protection="FALSE")]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert side.world.calls == []
    assert not Saga.objects.exists()


def test_the_header_is_read_in_any_case(side: Side, api: Api) -> None:
    answer = api.post(URL, ADA, X_Use_Integrity_Protection="True")

    assert answer.status_code == 201
    assert Saga.objects.count() == 1


@pytest.mark.parametrize("value", ["", "yes", "1", "true,true", "treu", "on"])
def test_the_header_takes_nothing_else(side: Side, api: Api, value: str) -> None:
    customer = customer_create(name="Ada")
    one = f"{URL}{customer.pk}"
    headers = {"X_Use_Integrity_Protection": value}

    answers = [
        api.post(URL, ADA, **headers),
        api.patch(one, {"name": "B"}, **headers),
        api.put(one, {"name": "B", "email": None}, **headers),
        api.delete(one, **headers),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(400, "invalid_header")] * 4
    assert Customer.objects.get().name == "Ada"
    assert not Saga.objects.exists()


def test_what_the_api_refuses_begins_no_saga(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada", email="ada@example.com")
    gone = side.linked(name="Bob")
    api.delete(f"{URL}{gone.pk}")

    answers = [
        api.post(URL, {"name": 1}, **PROTECTED),
        api.post(URL, {"email": "ADA@example.com"}, **PROTECTED),
        api.patch(f"{URL}{customer.pk}", {"name": "X"}, If_Match='"7-0"', **PROTECTED),
        api.patch(f"{URL}{gone.pk}", {"name": "X"}, **PROTECTED),
        api.delete(f"{URL}019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f", **PROTECTED),
    ]

    assert [answer.status_code for answer in answers] == [400, 409, 412, 410, 404]
    assert not Saga.objects.exists()
    assert saga_of is not None
    nothing_is_left()
