"""Protected changes that fail: everything undone, said so, and nothing seen by anybody."""

from __future__ import annotations

from typing import Any

import pytest

from customers.integrations import ConfigurationError, PermanentError, Unreachable
from customers.models import Customer, Saga, SyncRequest, SyncState
from customers.sagas.errors import SagaUndone
from customers.services import customer_create, customer_update
from tests.customers.conftest import Api
from tests.customers.published import published
from tests.customers.sagas.conftest import PROTECTED, nothing_is_left, saga_of, steps_of
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import Call, World

pytestmark = [pytest.mark.feature("C2", "C5", "C14"), pytest.mark.django_db(transaction=True)]

URL = "/api/v1/customers/"
ADA = {"name": "Ada", "email": "ada@example.com"}


def refuses(world: World, method: str, error: Exception | None = None, *, times: int = 1000) -> None:
    """The other side answers calls of this kind so, without any effect."""
    left = [times]

    def strike(call: Call) -> None:
        if call.method == method and left[0] > 0:
            left[0] -= 1
            raise error or PermanentError("No such country.", code="country_unsupported")

    world.before.append(strike)


def test_a_customer_that_the_integration_refuses_is_seen_by_nobody(side: Side, api: Api) -> None:
    refuses(side.world, "create")

    answer = api.post(URL, ADA, **PROTECTED)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (502, "integration_refused")
    assert answer["Content-Type"] == "application/problem+json"
    assert problem["failed"] == {
        "step": "remote",
        "integration": "memory",
        "code": "country_unsupported",
        "message": "No such country.",
    }
    assert problem["undone"] == [{"step": "reserve", "integration": None}]
    assert steps_of(saga_of(answer)) == [("reserve", "undone"), ("remote memory", "refused"), ("local", "skipped")]
    assert not Customer.objects.exists()
    assert published() == []
    nothing_is_left()
    side.rest()
    assert not Customer.objects.exists()


def test_the_e_mail_of_a_refused_customer_is_free_again(side: Side, api: Api) -> None:
    refuses(side.world, "create", times=1)

    answers = [api.post(URL, ADA, **PROTECTED) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [502, 201]
    assert len(side.world.living()) == Customer.objects.count() == 1


@pytest.mark.parametrize("method", ["create", "update", "delete"])
def test_a_refused_repeat_is_no_answer_to_the_send_before_it(side: Side, api: Api, method: str) -> None:
    customer = None if method == "create" else side.linked(**ADA)
    place = f"{URL}{customer.pk}/" if customer else URL
    side.world.lose_answers(1, method=method)
    side.world.refuse_repeat(method=method)

    verb, body = {"create": ("POST", ADA), "update": ("PATCH", {"name": "Eve"}), "delete": ("DELETE", None)}[method]
    answer = api(verb, place, body, **PROTECTED)

    wanted = {"create": (201, ["Ada"]), "update": (200, ["Eve"]), "delete": (204, [])}[method]
    assert (answer.status_code, [record.fields["name"] for record in side.world.living()]) == wanted
    assert [one.name for one in Customer.objects.active()] == wanted[1]
    nothing_is_left()


def test_what_one_integration_took_is_undone_when_the_next_refuses(side: Side, second: World, api: Api) -> None:
    refuses(second, "create")

    answer = api.post(URL, ADA, **PROTECTED)

    assert answer.status_code == 502
    assert answer.json()["failed"]["integration"] == "second"
    assert answer.json()["undone"] == [
        {"step": "reserve", "integration": None},
        {"step": "remote", "integration": "memory"},
    ]
    assert side.world.living() == second.living() == []
    assert [call.method for call in side.world.writes()] == ["create", "delete"]
    assert not Customer.objects.exists()
    # Messages about the record that is gone are no news.
    side.rest()
    assert not Customer.objects.exists()
    nothing_is_left()


def test_an_update_that_the_next_integration_refuses_is_put_back(side: Side, second: World, api: Api) -> None:
    customer = side.linked(name="Ada", metadata={"plan": "gold", "old": "1"})
    refuses(second, "update")

    change = {"name": "Eve", "metadata": {"plan": "iron", "new": "2"}}
    answer = api.patch(f"{URL}{customer.pk}", change, **PROTECTED)

    assert (answer.status_code, answer.json()["code"]) == (502, "integration_refused")
    customer.refresh_from_db()
    assert (customer.name, customer.version) == ("Ada", 1)
    assert side.remote(customer) == {"name": "Ada", "metadata.plan": "gold", "metadata.old": "1"}
    writes = len(side.world.writes())
    side.world.messages.clear()
    nothing_is_left()
    second.before.clear()
    side.rest()
    assert len(side.world.writes()) == writes
    assert [event.type for event in published()] == ["customer.created"]


def test_a_change_there_that_came_between_is_not_put_back(side: Side, second: World, api: Api) -> None:
    customer = side.linked(name="Ada", phone="1")
    remote_id = side.state(customer).remote_id or ""

    def edit_and_refuse(call: Call) -> None:
        if call.method == "update":
            side.world.edit(remote_id, name="Edited there")
            raise PermanentError("No.", code="no")

    second.before.append(edit_and_refuse)

    answer = api.patch(f"{URL}{customer.pk}", {"name": "Eve", "phone": "2"}, **PROTECTED)

    assert answer.status_code == 502
    assert side.remote(customer) == {"name": "Edited there", "phone": "1"}


def test_a_customer_that_cannot_be_stored_here_is_deleted_there(side: Side, api: Api) -> None:
    # Somebody who was before the reservation takes the e-mail while the integration is asked.
    def take(call: Call) -> None:
        if call.method == "create":
            Customer.objects.create(name="Bob", email="ADA@example.com")

    side.world.after.append(take)

    answer = api.post(URL, ADA, **PROTECTED)

    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (409, "duplicate_entry", "email")
    assert {"step": "remote", "integration": "memory"} in problem["undone"]
    assert problem["failed"]["step"] == "local"
    assert side.world.living() == []
    assert [customer.name for customer in Customer.objects.all()] == ["Bob"]
    nothing_is_left()


def test_an_update_that_cannot_be_stored_here_is_put_back_there(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada", email="ada@example.com")

    def take(call: Call) -> None:
        if call.method == "update" and not Customer.objects.filter(name="Bob").exists():
            Customer.objects.create(name="Bob", email="new@example.com")

    side.world.after.append(take)

    answer = api.patch(f"{URL}{customer.pk}", {"email": "new@example.com"}, **PROTECTED)

    assert (answer.status_code, answer.json()["code"]) == (409, "duplicate_entry")
    assert side.remote(customer) == {"name": "Ada", "email": "ada@example.com"}
    nothing_is_left()


def test_a_field_that_was_changed_there_is_not_overwritten(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada", phone="1")
    side.world.edit(side.state(customer).remote_id or "", name="Edited there")

    refused = api.patch(f"{URL}{customer.pk}", {"name": "Eve"}, **PROTECTED)
    other = api.patch(f"{URL}{customer.pk}", {"phone": "2"}, **PROTECTED)

    assert (refused.status_code, refused.json()["code"]) == (409, "remote_conflict")
    assert refused.json()["undone"] == [{"step": "reserve", "integration": None}]
    assert other.status_code == 200
    side.rest()
    customer.refresh_from_db()
    assert (customer.name, customer.phone) == ("Edited there", "2")
    assert side.remote(customer) == {"name": "Edited there", "phone": "2"}


def test_a_deletion_that_would_lose_something_live_is_refused(side: Side, second: World, api: Api) -> None:
    customer = side.linked(name="Ada")
    second.obstacles[SyncState.objects.get(integration="second").remote_id or ""] = "A live subscription."

    answer = api.delete(f"{URL}{customer.pk}", **PROTECTED)

    assert (answer.status_code, answer.json()["code"]) == (409, "delete_refused")
    assert "A live subscription." in answer.json()["detail"]
    customer.refresh_from_db()
    assert customer.deleted_at is None
    # Asked of all before the first one was deleted.
    assert len(side.world.living()) == len(second.living()) == 1
    nothing_is_left()


def test_a_customer_that_was_deleted_there_is_gone(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada")
    side.world.remove(side.state(customer).remote_id or "")

    update = api.patch(f"{URL}{customer.pk}", {"name": "Eve"}, **PROTECTED)
    side.rest()
    deletion = api.delete(f"{URL}{customer.pk}", **PROTECTED)

    assert [answer.status_code for answer in (update, deletion)] == [410, 410]
    customer.refresh_from_db()
    assert customer.deleted_at is not None


def test_a_deletion_of_what_is_gone_there_is_done_here(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada")
    side.world.remove(side.state(customer).remote_id or "")

    answer = api.delete(f"{URL}{customer.pk}", **PROTECTED)

    assert answer.status_code == 204
    assert [call.method for call in side.world.writes()] == ["create"]


@pytest.mark.parametrize(
    "error", [ConfigurationError("No key.", code="no_key"), PermanentError("Bad e-mail.", code="email_invalid")]
)
def test_it_gives_up_at_once_when_no_repeat_can_help(side: Side, api: Api, error: Exception) -> None:
    refuses(side.world, "create", error)

    answer = api.post(URL, ADA, **PROTECTED)

    assert answer.status_code == 502
    assert len(side.world.writes()) == 1


def test_an_earlier_change_that_is_refused_does_not_refuse_this_one(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada", phone="1")
    customer_update(customer_id=customer.pk, changes={"phone": "bad"})
    side.poke()
    refuses(side.world, "update", Unreachable("gone", code="x"), times=1)
    side.sync(customer)
    assert SyncRequest.objects.in_flight().exists()
    refuses(side.world, "update", PermanentError("Bad phone.", code="bad"), times=1)

    answer = api.patch(f"{URL}{customer.pk}", {"name": "Eve"}, **PROTECTED)

    assert answer.status_code == 200
    assert side.remote(customer) == {"name": "Eve", "phone": "1"}


def test_a_customer_that_was_never_sent_is_created_there_by_a_protected_update(side: Side, api: Api) -> None:
    customer = customer_create(name="Ada", email="ada@example.com")

    answer = api.patch(f"{URL}{customer.pk}", {"name": "Eve"}, **PROTECTED)

    assert answer.status_code == 200
    assert side.remote(customer) == {"name": "Eve", "email": "ada@example.com"}
    side.rest()
    assert len(side.world.writes()) == 1


def test_as_a_function_it_returns_the_customer_or_raises_what_went_wrong(side: Side) -> None:
    created = customer_create(name="Ada", protected=True)
    refuses(side.world, "update")

    with pytest.raises(SagaUndone) as refused:
        customer_update(customer_id=created.pk, changes={"name": "Eve"}, protected=True)

    assert created.name == "Ada"
    assert (refused.value.status, refused.value.code) == (502, "integration_refused")
    assert refused.value.document["failed"]["code"] == "country_unsupported"
    assert Saga.objects.filter(status="done").count() == Saga.objects.filter(status="undone").count() == 1


def test_only_callers_that_can_write_may_ask_for_it(side: Side, reader: Any) -> None:
    answer = reader.post(URL, ADA, **PROTECTED)

    assert answer.status_code == 403
    assert side.world.calls == []
