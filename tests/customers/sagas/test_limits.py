"""The time limit, the places of a process, idempotency keys, and others who want the same customer meanwhile."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from prometheus_client import REGISTRY
from pytest_django import Settings

from customers.errors import CustomerBusy, EmailTaken
from customers.integrations import RetryableError, Unreachable
from customers.models import Customer, Saga
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.errors import SagasBusy, SagaUndecided, SagaUndone
from customers.sagas.running import saga_run
from customers.services import customer_create, customer_delete, customer_update
from dbresilience.errors import NestedTransaction
from operations.idempotency.errors import KeyReused
from operations.keys import apikey_create
from operations.models import IdempotencyKey, Lock
from outbox.models import StoredEvent
from tests.customers.conftest import Api
from tests.customers.races import in_threads
from tests.customers.sagas.conftest import PROTECTED, leases_run_out, nothing_is_left, saga_of, work_on
from tests.customers.sagas.test_refused import refuses
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import Call

pytestmark = [pytest.mark.feature("C14", "C11"), pytest.mark.django_db(transaction=True)]

URL = "/api/v1/customers/"
ADA = {"name": "Ada", "email": "ada@example.com"}
Action = Saga.Action


class Silence:
    """The other side answers creates only when it is told to."""

    def __init__(self, side: Side) -> None:
        self.asked, self.speak = threading.Event(), threading.Event()
        side.world.before.append(self._strike)

    def _strike(self, call: Call) -> None:
        if call.method == "create":
            self.asked.set()
            assert self.speak.wait(60)


def joined() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("saga-"):
            thread.join(60)


def test_it_says_where_to_look_when_the_limit_ends_first(side: Side, api: Api, settings: Settings) -> None:
    settings.PROTECTED_SECONDS = 0.1
    silence = Silence(side)

    answer = api.post(URL, ADA, **PROTECTED)
    assert silence.asked.wait(60)
    meanwhile = api.get(answer["Location"])
    silence.speak.set()
    joined()
    afterwards = api.get(answer["Location"])

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (504, "protected_change_undecided")
    assert answer["Location"] == problem["saga"]
    assert meanwhile.json()["status"] == "running"
    assert [step["status"] for step in meanwhile.json()["steps"]] == ["done", "running", "waiting"]
    assert afterwards.json()["status"] == "done"
    assert api.get(f"{URL}{afterwards.json()['customer_id']}").status_code == 200
    assert "Ada" not in json.dumps(meanwhile.json())
    nothing_is_left()


def test_what_does_not_go_through_at_once_is_tried_again_within_the_limit(side: Side, api: Api) -> None:
    refuses(side.world, "create", RetryableError("Try again.", code="lock_timeout"), times=2)

    answer = api.post(URL, ADA, **PROTECTED)

    assert answer.status_code == 201
    assert len(side.world.living()) == 1


def test_another_worker_brings_it_to_its_end(
    side: Side, api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROTECTED_SECONDS = 0.3
    # The longest wait, which is past the limit.
    monkeypatch.setattr("customers.sagas.running.random", SimpleNamespace(uniform=lambda shortest, longest: longest))
    refuses(side.world, "create", Unreachable("gone", code="x"), times=2)

    answer = api.post(URL, ADA, **PROTECTED)
    joined()
    work_on()

    assert answer.status_code == 504
    assert saga_of(answer).status == "done"
    assert len(side.world.living()) == Customer.objects.count() == 1


def test_it_gives_up_in_the_end_and_undoes(side: Side) -> None:
    refuses(side.world, "create", RetryableError("Try again.", code="lock_timeout"), times=1)
    lease = saga_begin(Wanted(action=Action.CREATE, values=ADA))
    Saga.objects.update(give_up_at="2020-01-01T00:00:00Z")

    ended = saga_run(lease)

    assert ended is not None
    problem = json.loads(ended.answer.body)
    assert (problem["status"], problem["code"]) == (502, "integration_unavailable")
    # Nobody knew whether the first one had arrived; the way back found out, and deleted it.
    assert [call.method for call in side.world.writes() if call.changed] == ["create", "delete"]
    assert side.world.living() == []
    assert not Customer.objects.exists()
    nothing_is_left()


def test_a_process_carries_out_so_many_at_once(side: Side, api: Api, settings: Settings) -> None:
    settings.PROTECTED_SECONDS, settings.PROTECTED_AT_ONCE = 0.1, 1
    silence = Silence(side)

    first = api.post(URL, ADA, **PROTECTED)
    second = api.post(URL, {"name": "Bob"}, **PROTECTED)
    silence.speak.set()
    joined()
    third = api.post(URL, {"name": "Bob"}, **PROTECTED)

    assert [answer.status_code for answer in (first, second)] == [504, 503]
    assert (second.json()["code"], second["Retry-After"]) == ("too_many_protected_changes", "2")
    assert third.status_code in (201, 504)
    joined()
    assert Saga.objects.filter(status="done").count() == 2


def test_it_cannot_be_part_of_a_transaction(side: Side) -> None:
    with pytest.raises(NestedTransaction), transaction.atomic():
        customer_create(name="Ada", protected=True)

    assert not Saga.objects.exists()


@pytest.mark.feature("C10")
def test_a_repeat_of_the_key_gets_the_same_answer(side: Side, api: Api) -> None:
    answers = [api.post(URL, ADA, Idempotency_Key="k", **PROTECTED) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert {answer.content for answer in answers} == {answers[0].content}
    assert [answer.get("Idempotent-Replayed") for answer in answers] == [None, "true", "true"]
    assert {answer["Location"] for answer in answers} == {answers[0]["Location"]}
    assert len(side.world.living()) == Customer.objects.count() == Saga.objects.count() == 1


@pytest.mark.feature("C10")
def test_a_repeat_of_a_refused_key_gets_the_same_refusal(side: Side, api: Api) -> None:
    refuses(side.world, "create", times=1)

    answers = [api.post(URL, ADA, Idempotency_Key="k", **PROTECTED) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [502, 502]
    assert answers[0].content == answers[1].content
    assert answers[1]["Content-Type"] == "application/problem+json"
    assert Saga.objects.count() == 1


@pytest.mark.feature("C10")
def test_a_key_is_in_flight_until_its_change_has_ended(side: Side, api: Api, settings: Settings) -> None:
    settings.PROTECTED_SECONDS = 0.1
    silence = Silence(side)

    first = api.post(URL, ADA, Idempotency_Key="k", **PROTECTED)
    early = api.post(URL, ADA, Idempotency_Key="k", **PROTECTED)
    IdempotencyKey.objects.update(lease_until="2020-01-01T00:00:00Z")
    later = api.post(URL, ADA, Idempotency_Key="k", **PROTECTED)
    silence.speak.set()
    joined()
    repeated = api.post(URL, ADA, Idempotency_Key="k", **PROTECTED)

    assert first.status_code == 504
    assert [answer.json()["code"] for answer in (early, later)] == ["idempotency_key_in_flight"] * 2
    assert later["Location"] == first["Location"]
    assert (repeated.status_code, repeated["Idempotent-Replayed"]) == (201, "true")
    assert len(side.world.living()) == Saga.objects.count() == 1


@pytest.mark.feature("C10")
def test_a_key_belongs_to_the_request_with_its_protection(side: Side, api: Api) -> None:
    answers = [
        api.post(URL, ADA, Idempotency_Key="k", **PROTECTED),
        api.post(URL, ADA, Idempotency_Key="k"),
        api.post(URL, {"name": "Bob"}, Idempotency_Key="k", **PROTECTED),
    ]

    assert [answer.status_code for answer in answers] == [201, 422, 422]


@pytest.mark.feature("C10")
def test_what_is_refused_before_it_begins_is_kept_or_forgotten_as_always(side: Side, api: Api) -> None:
    missing = f"{URL}019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f"

    kept = [api.patch(missing, {"name": "A"}, Idempotency_Key="k", **PROTECTED) for _ in range(2)]
    invalid = api.post(URL, {"name": 1}, Idempotency_Key="l", **PROTECTED)
    mended = api.post(URL, ADA, Idempotency_Key="l", **PROTECTED)

    assert [answer.status_code for answer in kept] == [404, 404]
    assert kept[1]["Idempotent-Replayed"] == "true"
    assert (invalid.status_code, mended.status_code) == (400, 201)


@pytest.mark.feature("C10")
def test_twenty_who_ask_alike_at_once_make_one_customer(side: Side) -> None:
    issued = apikey_create(name="many", scopes=["customers:write"], rate_limit=0)
    answers: list[Any] = []

    def ask() -> None:
        client = Client(headers={"Authorization": issued.authorization, "Idempotency-Key": "k", **_HEADER})
        while (answer := client.post(URL, ADA, content_type="application/json")).status_code in (409, 503):
            continue
        answers.append(answer)

    assert in_threads(*[ask] * 20) == []

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(side.world.records) == Customer.objects.count() == StoredEvent.objects.count() == 1
    nothing_is_left()


_HEADER = {"X-Use-Integrity-Protection": "true"}


@pytest.mark.feature("C10")
def test_as_a_function_a_key_means_one_effect_and_one_outcome(side: Side) -> None:
    first = customer_create(name="Ada", protected=True, idempotency_key="k", actor="job:signup")
    again = customer_create(name="Ada", protected=True, idempotency_key="k", actor="job:signup")
    other = customer_create(name="Ada", protected=True, idempotency_key="k", actor="job:other")
    refuses(side.world, "update", times=1)
    refusals = []
    for _ in range(2):
        with pytest.raises(SagaUndone) as refused:
            customer_update(customer_id=first.pk, changes={"name": "Eve"}, protected=True, idempotency_key="k")
        refusals.append(refused.value.document)
    with pytest.raises(KeyReused):
        customer_update(customer_id=first.pk, changes={"name": "Eva"}, protected=True, idempotency_key="k")
    gone = [customer_delete(customer_id=first.pk, protected=True, idempotency_key="k") for _ in range(2)]

    assert first.pk == again.pk != other.pk
    assert refusals[0] == refusals[1]
    assert all(customer.deleted_at is not None for customer in gone)
    assert Saga.objects.count() == 4


def test_as_a_function_it_raises_that_it_is_not_decided(side: Side, settings: Settings) -> None:
    settings.PROTECTED_SECONDS = 0.1
    silence = Silence(side)

    with pytest.raises(SagaUndecided) as undecided:
        customer_create(name="Ada", protected=True, idempotency_key="k")
    silence.speak.set()
    joined()
    customer = customer_create(name="Ada", protected=True, idempotency_key="k")

    assert undecided.value.members["saga"].startswith("/api/v1/customers/sagas/")
    assert customer.name == "Ada"


@pytest.mark.feature("C9")
def test_nobody_else_changes_the_customer_meanwhile(side: Side, api: Api) -> None:
    customer = side.linked(name="Ada", email="ada@example.com")
    other = side.linked(name="Bob")
    lease = saga_begin(Wanted(action=Action.UPDATE, customer_id=customer.pk, values={"email": "new@example.com"}))
    one = f"{URL}{customer.pk}"

    answers = [
        api.patch(one, {"name": "X"}),
        api.delete(one),
        api.patch(one, {"name": "X"}, **PROTECTED),
        api.post(URL, {"email": "NEW@example.com"}),
        api.post(URL, {"email": "new@EXAMPLE.com"}, **PROTECTED),
        api.patch(f"{URL}{other.pk}", {"email": "new@example.com"}),
    ]
    free = [api.patch(f"{URL}{other.pk}", {"name": "Rob"}), api.get(one)]
    contended = Lock.objects.get(kind="customer").contended
    saga_run(lease)
    afterwards = api.patch(one, {"name": "X"})

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "customer_busy")] * 6
    assert {answer["Retry-After"] for answer in answers} == {"1"}
    assert [answer.status_code for answer in free] == [200, 200]
    assert free[1].json()["email"] == "ada@example.com"
    assert afterwards.json()["email"] == "new@example.com"
    assert contended == 1
    assert (REGISTRY.get_sample_value("zenskar_locks_contended_total", {"kind": "customer"}) or 0) >= 1
    nothing_is_left()


@pytest.mark.feature("C1", "C9")
def test_a_worker_that_looks_at_the_customer_when_it_begins_changes_nothing_more(side: Side) -> None:
    customer = side.linked(name="Ada", phone="1")
    remote_id = side.state(customer).remote_id or ""
    side.world.edit(remote_id, name="Edited there")
    side.hear()
    leases = []

    def begin(call: Call) -> None:
        if call.method == "retrieve" and not leases:
            wanted = Wanted(action=Action.UPDATE, customer_id=customer.pk, values={"phone": "2"})
            leases.append(saga_begin(wanted))

    side.world.after.append(begin)

    outcome = side.sync(customer)
    ended = saga_run(leases[0])
    side.rest()

    assert outcome == "lease_lost"
    assert ended is not None
    customer.refresh_from_db()
    assert (customer.name, customer.phone) == ("Edited there", "2")
    assert side.remote(customer) == {"name": "Edited there", "phone": "2"}
    nothing_is_left()


@pytest.mark.feature("C1")
def test_a_webhook_of_its_own_create_makes_no_second_customer(side: Side) -> None:
    side.world.lose_answers(1, method="create")
    lease = saga_begin(Wanted(action=Action.CREATE, values=ADA))

    saga_run(lease)
    side.hear()
    leases_run_out()
    work_on()
    side.rest()

    assert [saga.status for saga in Saga.objects.all()] == ["done"]
    assert len(side.world.living()) == Customer.objects.count() == 1


@pytest.mark.feature("C3", "C9")
def test_of_many_who_want_one_e_mail_one_gets_it_and_nothing_is_left_there_of_the_others(side: Side) -> None:
    outcomes: list[str] = []

    def protected() -> None:
        try:
            customer_create(name="P", email="ada@example.com", protected=True)
            outcomes.append("created")
        except (CustomerBusy, EmailTaken, SagaUndone, SagasBusy) as exc:
            outcomes.append(exc.code)

    def plain() -> None:
        try:
            customer_create(name="U", email="ADA@example.com")
            outcomes.append("created")
        except (CustomerBusy, EmailTaken) as exc:
            outcomes.append(exc.code)

    assert in_threads(*[protected, plain] * 6) == []

    assert outcomes.count("created") == 1, outcomes
    assert Customer.objects.count() == 1
    side.rest()
    assert len(side.world.living()) == 1
    nothing_is_left()


def test_a_worker_that_was_suspended_past_its_lease_changes_nothing(side: Side) -> None:
    lease = saga_begin(Wanted(action=Action.CREATE, values=ADA))
    others: list[int] = []

    def suspended(name: str) -> None:
        if name == "answered" and not others:
            others.append(work_on())

    late = saga_run(lease, on_step=suspended)

    assert late is None
    assert others == [1]
    assert Saga.objects.get().status == "done"
    assert len(side.world.living()) == Customer.objects.count() == StoredEvent.objects.count() == 1
    nothing_is_left()


def test_strangers_and_others_see_no_saga(side: Side, api: Api) -> None:
    api.post(URL, ADA, **PROTECTED)
    address = f"{URL}sagas/{Saga.objects.get().pk}"

    answers = [
        Client().get(address),
        Api("operations:read").get(address),
        api.get(f"{URL}sagas/019a8f6e-6a1b-7c3d-9e4f-5a6b7c8d9e0f/"),
        api.get(f"{URL}sagas/x"),
        api.post(address, {}),
    ]

    assert [answer.status_code for answer in answers] == [401, 403, 404, 404, 405]
    assert [api.get(path).status_code for path in (address, f"{address}/", address.removeprefix("/api/v1"))] == [
        200
    ] * 3
