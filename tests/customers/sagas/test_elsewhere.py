"""Protected changes where people look: a customer's page and deletion, the life of a thing, the relay."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pytest_django import Settings

from customers.models import Customer, Saga
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.running import saga_run
from outbox.relaying import Relay
from tests.customers.conftest import Api
from tests.customers.sagas.conftest import PROTECTED, begun, leases_run_out, nothing_is_left
from tests.customers.sagas.test_refused import refuses
from tests.customers.sync.conftest import Side
from tests.operations.conftest import MakeClient, staff_client

__all__ = ["staff_client"]
pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/v1/customers/"


@pytest.mark.feature("C9")
def test_the_console_deletes_nobody_who_is_being_changed(side: Side, staff_client: MakeClient) -> None:
    customer = side.linked(name="Ada")
    lease = saga_begin(Wanted(action=Saga.Action.UPDATE, customer_id=customer.pk, values={"name": "Eve"}))
    client = staff_client("operator")
    posted = {"action": "delete_for_good", "_selected_action": [str(customer.pk)], "confirmed": "yes"}

    answer = client.post("/admin/customers/customer/", posted, follow=True)
    page = client.get(f"/admin/customers/customer/{customer.pk}/change/").content.decode()
    saga_run(lease)

    assert "Deleted 0 of 1 customer." in answer.content.decode()
    assert f"/admin/customers/saga/?q={customer.pk}" in page
    customer.refresh_from_db()
    assert (customer.name, customer.deleted_at) == ("Eve", None)


@pytest.mark.feature("H5")
def test_its_life_is_told_with_its_steps(side: Side, settings: Settings) -> None:
    api = Api("customers:read", "customers:write", "operations:read")
    made = api.post(URL, {"name": "Ada"}, X_Correlation_ID="order-7", **PROTECTED).json()
    refuses(side.world, "update")
    refused = api.patch(f"{URL}{made['id']}", {"name": "Eve"}, **PROTECTED)
    saga = str(Saga.objects.get(status="undone").pk)

    def told(term: str) -> list[tuple[str, str, str]]:
        answer = api.get(f"/api/v1/admin/life/?q={term}")
        assert answer.status_code == 200, answer.json()
        entries: list[Any] = answer.json()["entries"]
        return [(one["kind"], one["what"], one["state"]) for one in entries if one["kind"].startswith("saga")]

    by_customer, by_cause, by_id = told(made["id"]), told("order-7"), told(f"saga:{saga}")

    assert refused.status_code == 502
    assert ("saga", "Protected update", "undone") in by_customer
    assert ("saga_step", "Step 2: remote memory", "refused") in by_id
    assert ("saga", "Protected create", "done") in by_cause
    assert {what for kind, what, _ in by_cause if kind == "saga"} == {"Protected create"}
    assert [state for kind, _, state in by_cause if kind == "saga_step"] == ["done"] * 3


@pytest.mark.feature("C11", "F4")
def test_the_relay_goes_on_with_what_a_dead_process_left(side: Side, settings: Settings) -> None:
    settings.OUTBOX_SUBSCRIBERS = ["customers.sync.pokes.SyncPokes"]
    # As shipped, but for what has nothing to do with customers.
    settings.OUTBOX_RELAY_COMPANIONS = [one for one in settings.OUTBOX_RELAY_COMPANIONS if "customers" in one]
    side.world.lose_answers(1, method="create")
    saga = begun(Saga.Action.CREATE, name="Ada")
    leases_run_out()
    heard = threading.Event()
    side.world.after.append(lambda call: heard.set())
    relay = Relay()

    relay.start()
    went_on = heard.wait(60)
    stopped = relay.stop()

    saga.refresh_from_db()
    assert (went_on, stopped) == (True, True)
    assert saga.status == "done"
    assert Customer.objects.count() == len(side.world.records) == 1
    nothing_is_left()
