"""Protected changes against the Stripe sandbox over HTTP: what Stripe received, and what others make of it."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from customers.models import Customer, Drift, Saga, SyncState, Webhook
from customers.sagas import places
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.running import saga_run
from customers.stripe.client import stripe_client
from customers.stripe.conf import stripe_settings
from customers.stripe.integration import StripeIntegration
from operations.keys import apikey_create
from operations.models import IdempotencyKey, Lock
from outbox.models import StoredEvent
from tests.children import child_run
from tests.customers.conftest import Api
from tests.customers.maintenance.conftest import both, run
from tests.customers.sagas.conftest import PROTECTED, nothing_is_left, saga_of, work_on
from tests.customers.stripe.conftest import StripeSide, sandbox, stripe_server
from tests.customers.sync.conftest import Died, dies_at
from zenskar.sandbox.stripe.core import StripeSandbox

__all__ = ["both", "sandbox", "stripe_server"]
pytestmark = [pytest.mark.feature("C11", "C14"), pytest.mark.django_db(transaction=True)]

URL = "/api/v1/customers/"
ADA = {"name": "Ada", "email": "ada@example.com"}
# After the lease, with the request frozen, with Stripe's answer, with it written down, after the end, and never.
BOUNDARIES = ("begun", "taken", "decided", "answered", "remote stripe done", "finished", "never")


@pytest.fixture
def stripe_side(sandbox: StripeSandbox, transactional_db: None) -> StripeSide:
    side = StripeSide(sandbox)
    side.events()
    return side


def living(side: StripeSide) -> list[dict[str, Any]]:
    return [customer for customer in side.sandbox.customers.values() if not customer.get("deleted")]


def create(boundary: str, number: int, authorization: str) -> None:
    """A protected create whose process kills itself at a boundary."""

    def die(name: str) -> None:
        if name == boundary:
            os.kill(os.getpid(), signal.SIGKILL)

    places.saga_run = partial(saga_run, on_step=die)  # type: ignore[assignment]
    client = Client(headers={"Authorization": authorization, "X-Use-Integrity-Protection": "true"})
    key = {"Idempotency-Key": f"k{number}"}
    answer = client.post(URL, {"name": f"Ada {number}"}, content_type="application/json", headers=key)
    assert answer.status_code == 201


@pytest.mark.feature("C5")
def test_it_survives_the_kill_of_its_process_at_every_boundary(stripe_side: StripeSide, settings: Settings) -> None:
    issued = apikey_create(name="killed", scopes=["customers:write"], rate_limit=0)
    endings = [
        child_run(partial(create, boundary, number, issued.authorization)).returncode
        for number, boundary in enumerate(BOUNDARIES, 1)
    ]
    killed = Saga.objects.open().count()

    work_on()
    IdempotencyKey.objects.filter(status=None).update(lease_until="2020-01-01T00:00:00Z")
    api = Api("customers:write")
    api._client.defaults["HTTP_AUTHORIZATION"] = issued.authorization
    again = [
        api.post(URL, {"name": f"Ada {n}"}, Idempotency_Key=f"k{n}", **PROTECTED) for n in range(1, len(endings) + 1)
    ]

    assert endings == [-signal.SIGKILL] * (len(endings) - 1) + [0]
    # Killed after the last commit, it was done.
    assert killed == len(endings) - 2 == 5
    assert [answer.status_code for answer in again] == [201] * len(endings)
    assert {answer["Idempotent-Replayed"] for answer in again} == {"true"}
    names = sorted(f"Ada {n}" for n in range(1, len(endings) + 1))
    assert sorted(str(customer["name"]) for customer in living(stripe_side)) == names
    assert sorted(str(customer.name) for customer in Customer.objects.all()) == names
    assert StoredEvent.objects.count() == len(endings)
    nothing_is_left()


@pytest.mark.parametrize("phase", ["before", "after"])
@pytest.mark.parametrize("effect", ["status", "reset", "lock_timeout"])
def test_a_create_whose_answer_is_bad_or_lost_is_done_once(stripe_side: StripeSide, effect: str, phase: str) -> None:
    stripe_side.sandbox.faults.add(route="POST /v1/customers", effect=effect, phase=phase, status=503)

    answer = Api("customers:write").post(URL, ADA, **PROTECTED)

    assert answer.status_code == 201, answer.json()
    (customer,) = living(stripe_side)
    assert customer["id"] == answer.json()["integrations"]["stripe"]["remote_id"]
    stripe_side.rest()
    assert stripe_side.writes().count("POST /v1/customers") <= 3
    assert len(stripe_side.sandbox.customers) == Customer.objects.count() == 1
    nothing_is_left()


def test_too_many_requests_are_waited_for(stripe_side: StripeSide) -> None:
    stripe_side.sandbox.faults.add(route="POST /v1/customers", effect="status", status=429)

    answer = Api("customers:write").post(URL, ADA, **PROTECTED)

    assert answer.status_code == 201
    assert len(living(stripe_side)) == 1


def test_what_stripe_refuses_is_told_in_its_words(stripe_side: StripeSide) -> None:
    stripe_side.sandbox.faults.add(route="POST /v1/customers", effect="status", status=402)

    answer = Api("customers:write").post(URL, ADA, **PROTECTED)

    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (502, "integration_refused")
    assert problem["failed"]["integration"] == "stripe"
    assert problem["failed"]["message"] in problem["detail"]
    assert saga_of(answer).status == "undone"
    assert stripe_side.sandbox.customers == {}
    assert not Customer.objects.exists()
    assert not StoredEvent.objects.exists()


def test_an_update_and_a_deletion_reach_stripe_before_they_are_answered(stripe_side: StripeSide) -> None:
    api = Api("customers:write")
    made = api.post(URL, ADA, **PROTECTED).json()
    one, remote_id = f"{URL}{made['id']}/", made["integrations"]["stripe"]["remote_id"]

    changed = api.put(one, {"name": "Eve", "email": "eve@example.com"}, **PROTECTED)
    there = dict(stripe_side.sandbox.customers[remote_id])
    deleted = api.delete(one, **PROTECTED)

    assert (changed.status_code, deleted.status_code) == (200, 204)
    assert (there["name"], there["email"]) == ("Eve", "eve@example.com")
    assert living(stripe_side) == []
    stripe_side.rest()
    assert [line.split()[0] for line in stripe_side.writes()] == ["POST", "POST", "DELETE"]
    assert [event.type for event in StoredEvent.objects.order_by("id")] == [
        "customer.created",
        "customer.updated",
        "customer.deleted",
    ]
    nothing_is_left()


def test_live_subscriptions_refuse_a_protected_deletion(stripe_side: StripeSide) -> None:
    api = Api("customers:write")
    made = api.post(URL, ADA, **PROTECTED).json()
    whom = made["integrations"]["stripe"]["remote_id"]
    stripe_client(stripe_settings()).v1.subscriptions.create({"customer": whom, "items": [{"price": "price_gold"}]})

    answer = api.delete(f"{URL}{made['id']}", **PROTECTED)

    assert (answer.status_code, answer.json()["code"]) == (409, "delete_refused")
    assert "live subscription" in answer.json()["detail"]
    assert Customer.objects.get().deleted_at is None


@pytest.mark.feature("C9")
def test_reconciling_leaves_what_a_protected_create_is_about_to_link(both: StripeSide) -> None:
    lease = saga_begin(Wanted(action=Saga.Action.CREATE, values=ADA))
    with pytest.raises(Died):
        saga_run(lease, on_step=dies_at("answered"))
    both.sandbox.webhooks.pending()

    first, _ = run("stripe_reconcile")
    run("stripe_import")
    imported = Customer.objects.count()
    work_on()
    both.rest()
    second, _ = run("stripe_reconcile")

    assert (first, second, imported) == (0, 0, 0)
    assert not Drift.objects.exists()
    assert len(living(both)) == Customer.objects.count() == 1
    nothing_is_left()


def test_a_record_of_an_undone_create_that_turns_up_late_is_never_imported(both: StripeSide) -> None:
    both.sandbox.faults.add(route="POST /v1/customers", effect="status", status=402)
    saga_run(saga_begin(Wanted(action=Saga.Action.CREATE, values=ADA)))
    saga, state = Saga.objects.get(), SyncState.objects.get()
    request = state.requests.get()
    body = StripeIntegration().create_body(reference=str(saga.customer_id), fields={"name": "Ada"})
    StripeIntegration().create(body=body, key=request.key + "-late")
    Webhook.objects.all().delete()
    both.sandbox.webhooks.pending()

    run("stripe_import")
    run("stripe_reconcile")

    assert saga.status == "undone"
    assert not Customer.objects.exists()
    assert living(both) == [] or Drift.objects.filter(repair="delete_there").exists()
    assert not Lock.objects.exists()
