"""Compensations that fail: repeated by the ladder, then a person's, who sees them and lets them go on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from customers.integrations import PermanentError, RetryableError, Unreachable
from customers.models import Customer, Saga, SagaStep, SyncRequest, SyncState
from customers.sagas.beginning import Wanted, saga_begin
from customers.sagas.retrying import sagas_retry
from customers.sagas.runner import sagas_prune_once
from customers.sagas.running import saga_run
from customers.services import customer_update
from operations.models import AuditEntry, Lock
from tests.customers.conftest import Api
from tests.customers.erasing.searching import places_of
from tests.customers.sagas.conftest import begun, nothing_is_left, steps_of, work_on
from tests.customers.sagas.test_refused import refuses
from tests.customers.sync.conftest import Side
from tests.customers.sync.memory import Call, World
from tests.operations.conftest import MakeClient, staff_client

__all__ = ["staff_client"]
pytestmark = [pytest.mark.feature("C6"), pytest.mark.django_db(transaction=True)]

URL = "/api/v1/customers/"


@pytest.fixture(autouse=True)
def patience(settings: Settings) -> None:
    settings.PROTECTED_ATTEMPTS = 4


def stuck_create(side: Side, second: World) -> Saga:
    """The second refuses; what the first has cannot be deleted."""
    refuses(second, "create")
    refuses(side.world, "delete", PermanentError("Not now.", code="locked"), times=4)
    saga = begun(Saga.Action.CREATE, name="Ada", email="ada@example.com")
    assert saga.status == "undoing"
    work_on()
    saga.refresh_from_db()
    return saga


def test_an_undoing_that_fails_is_repeated_and_then_stuck(side: Side, second: World, api: Api) -> None:
    saga = stuck_create(side, second)

    assert (saga.status, saga.strikes, saga.last_error_code) == ("stuck", 4, "locked")
    assert [call.method for call in side.world.writes()] == ["create"] + ["delete"] * 4
    assert steps_of(saga)[1] == ("remote memory", "undoing")
    # The customer is nobody's, and nobody takes its record for a new one.
    side.rest()
    assert len(side.world.living()) == 1
    assert not Customer.objects.exists()
    assert not Lock.objects.exists()


def test_the_e_mail_of_a_stuck_create_may_be_given_to_another(side: Side, second: World, api: Api) -> None:
    stuck_create(side, second)
    second.before.clear()

    answer = api.post(URL, {"name": "Ada", "email": "ada@example.com"})

    assert answer.status_code == 201


def test_a_person_lets_it_go_on(side: Side, second: World, api: Api) -> None:
    saga = stuck_create(side, second)

    retried = sagas_retry(ids=[saga.pk], actor="user:ann", reason="it is open again")
    again = sagas_retry(ids=[saga.pk], actor="user:ann")
    work_on()

    saga.refresh_from_db()
    assert (retried, again) == ([saga.pk], [])
    assert saga.status == "undone"
    assert side.world.living() == []
    entry = AuditEntry.objects.get(action="saga.retried")
    assert (entry.actor, entry.target) == ("user:ann", f"saga:{saga.pk}")
    assert entry.detail == {"reason": "it is open again"}
    nothing_is_left()


@pytest.mark.feature("H8")
def test_it_forgets_whom_it_was_to_create_after_a_while(side: Side, second: World, settings: Settings) -> None:
    settings.PROTECTED_STUCK_RETENTION = 30
    saga = stuck_create(side, second)
    SagaStep.objects.filter(saga=saga, number=2).update(error_message="ada@example.com is locked, said Ada")
    side.hear()

    young = places_of(["ada@example.com"]) if sagas_prune_once() == 0 else []
    Saga.objects.filter(pk=saga.pk).update(updated_at=timezone.now() - timedelta(days=31))
    sagas_prune_once()
    side.world.edit(side.world.living()[0].remote_id, name="Ada L.")
    side.hear()
    sagas_prune_once()

    saga.refresh_from_db()
    assert {"customers_saga.values", "customers_syncrequest.body", "customers_webhook.payload"} <= set(young)
    assert places_of(["ada@example.com", "Ada L."]) == []
    assert saga.status == "stuck"
    assert len(side.world.living()) == 1


@pytest.mark.feature("H8")
def test_what_forgot_whom_it_was_to_create_can_still_be_undone(side: Side, second: World, settings: Settings) -> None:
    saga = stuck_create(side, second)
    Saga.objects.filter(pk=saga.pk).update(updated_at=timezone.now() - timedelta(days=91))
    sagas_prune_once()

    sagas_retry(ids=[saga.pk], actor="user:ann")
    work_on()

    saga.refresh_from_db()
    assert saga.status == "undone"
    assert side.world.living() == []
    nothing_is_left()


@pytest.mark.feature("H8")
def test_it_keeps_the_words_of_a_create_that_may_yet_have_an_effect(side: Side, settings: Settings) -> None:
    """No answer came to it ever, and a person must look: it is repeated word by word, or not at all."""
    refuses(side.world, "create", RetryableError("Broken.", code="500"), times=99)
    saga = begun(Saga.Action.CREATE, name="Ada", email="ada@example.com")
    Saga.objects.filter(pk=saga.pk).update(give_up_at=timezone.now())
    work_on()
    Saga.objects.filter(pk=saga.pk).update(updated_at=timezone.now() - timedelta(days=91))

    sagas_prune_once()

    saga.refresh_from_db()
    assert (saga.status, saga.values["name"]) == ("stuck", "Ada")
    assert "Ada" in str(SyncRequest.objects.in_flight().get().body)


def test_operators_see_it_among_the_troubles_and_try_it_again(
    side: Side, second: World, api: Api, staff_client: MakeClient
) -> None:
    saga = stuck_create(side, second)
    client = staff_client("operator")

    listed = client.get("/admin/troubles/?source=sagas").content.decode()
    page = client.get(f"/admin/customers/saga/{saga.pk}/change/").content.decode()
    rows = client.get("/admin/customers/saga/?stands=stuck").content.decode()
    group = client.get("/admin/troubles/group/?source=sagas&group=create%7Clocked").content.decode()
    client.post("/admin/troubles/", {"source": "sagas", "group": "create|locked"})
    work_on()

    assert "Not now." in listed
    assert f"/admin/customers/saga/{saga.pk}/change/" in group
    assert "Not now." in page
    assert "Try again" in page
    assert "memory" in page
    assert str(saga.customer_id) in rows
    assert Saga.objects.get().status == "undone"


def test_those_that_are_done_can_be_listed_alone(side: Side, second: World, staff_client: MakeClient) -> None:
    done, stuck = begun(Saga.Action.CREATE, name="Ada"), stuck_create(side, second)
    Saga.objects.filter(pk=done.pk).update(status="done", values={}, finished_at=timezone.now())

    rows = staff_client("viewer").get("/admin/customers/saga/?stands=done").content.decode()

    assert (str(done.customer_id) in rows, str(stuck.customer_id) in rows) == (True, False)


def test_its_page_has_the_button_too(side: Side, second: World, api: Api, staff_client: MakeClient) -> None:
    saga = stuck_create(side, second)
    client = staff_client("operator")
    posted = {"action": "retry", "_selected_action": [str(saga.pk)], "from_page": "1"}

    first = client.post("/admin/customers/saga/", posted, follow=True)
    again = client.post("/admin/customers/saga/", posted, follow=True)

    assert "1 protected change goes on." in first.content.decode()
    assert "1 was left" in again.content.decode()
    assert Saga.objects.get().status == "undoing"


def test_viewers_may_see_and_not_retry(side: Side, second: World, api: Api, staff_client: MakeClient) -> None:
    saga = stuck_create(side, second)
    client = staff_client("viewer")

    page = client.get(f"/admin/customers/saga/{saga.pk}/change/").content.decode()
    client.post("/admin/customers/saga/", {"action": "retry", "_selected_action": [str(saga.pk)]})

    assert "Not now." in page
    assert "Try again" not in page
    assert Saga.objects.get().status == "stuck"


def test_an_outage_makes_nothing_stuck(side: Side, second: World, api: Api) -> None:
    refuses(second, "create")
    refuses(side.world, "delete", Unreachable("gone", code="x"), times=12)

    saga = begun(Saga.Action.CREATE, name="Ada")
    work_on()

    saga.refresh_from_db()
    assert saga.status == "undone"
    assert side.world.living() == []


def test_an_update_that_cannot_be_put_back_is_left_to_the_synchronisation(side: Side, second: World, api: Api) -> None:
    customer = side.linked(name="Ada")
    refuses(second, "update")
    side.world.before.append(_second_update_fails())
    saga = begun(Saga.Action.UPDATE, customer, name="Eve")
    work_on()
    saga.refresh_from_db()
    assert saga.status == "stuck"
    assert side.remote(customer) == {"name": "Eve"}

    side.world.before.clear()
    second.before.clear()
    customer_update(customer_id=customer.pk, changes={"phone": "1"})
    side.rest()

    assert side.remote(customer) == {"name": "Ada", "phone": "1"}
    assert sagas_retry(ids=[saga.pk], actor="user:ann") == [saga.pk]
    work_on()
    saga.refresh_from_db()
    assert saga.status == "undone"
    side.rest()
    assert side.remote(customer) == {"name": "Ada", "phone": "1"}
    nothing_is_left()


def test_a_half_done_deletion_goes_on_and_takes_no_other_change(side: Side, second: World, api: Api) -> None:
    customer = side.linked(name="Ada")
    refuses(second, "delete", PermanentError("Not now.", code="locked"), times=4)

    saga = begun(Saga.Action.DELETE, customer)
    work_on()
    stuck = Saga.objects.get().status
    other = api.patch(f"{URL}{customer.pk}", {"name": "Eve"})
    sagas_retry(ids=[saga.pk], actor="user:ann")
    work_on()

    saga.refresh_from_db()
    customer.refresh_from_db()
    assert (other.status_code, other.json()["code"]) == (409, "customer_busy")
    assert (stuck, saga.status) == ("stuck", "done")
    assert customer.deleted_at is not None
    assert side.world.living() == second.living() == []
    assert {state.status for state in SyncState.objects.all()} == {"deleted"}
    nothing_is_left()


def test_somebody_who_attached_something_live_meanwhile_is_heard(side: Side, second: World, api: Api) -> None:
    def attach(call: Call) -> None:
        if call.method == "create":
            for record in side.world.living():
                side.world.obstacles[record.remote_id] = "A live subscription."
            raise PermanentError("No.", code="no")

    second.before.append(attach)

    saga = begun(Saga.Action.CREATE, name="Ada")
    work_on()

    saga.refresh_from_db()
    assert (saga.status, saga.last_error_code) == ("stuck", "delete_refused")
    assert saga.last_error_message == "A live subscription."
    assert len(side.world.living()) == 1


def test_a_retry_waits_its_turn_behind_another_change(side: Side, second: World) -> None:
    customer = side.linked(name="Ada")
    refuses(second, "update")
    side.world.before.append(_second_update_fails())
    stuck = begun(Saga.Action.UPDATE, customer, name="Eve")
    work_on()
    other = saga_begin(Wanted(action=Saga.Action.UPDATE, customer_id=customer.pk, values={"phone": "1"}))

    behind = sagas_retry(ids=[stuck.pk], actor="user:ann")
    saga_run(other)
    work_on()

    assert behind == []
    assert Saga.objects.get(pk=stuck.pk).status == "stuck"


def _second_update_fails() -> Callable[[Call], None]:
    seen = [0]

    def strike(call: Call) -> None:
        if call.method == "update":
            seen[0] += 1
            if seen[0] > 1:
                raise PermanentError("No.", code="no")

    return strike


@pytest.mark.feature("C11")
def test_they_are_listed_by_page_and_status(side: Side, second: World, api: Api) -> None:
    operator = Api("operations:read")
    saga = stuck_create(side, second)
    done = [begun(Saga.Action.CREATE, name=f"Eve {number}") for number in range(3)]
    path = f"{URL}sagas/"

    first = operator.get(f"{path}?page_size=3").json()
    rest = operator.get(first["next"]).json()
    stuck = operator.get(f"{path}?status=stuck").json()["results"]
    of_one = operator.get(f"/customers/sagas?customer_id={done[0].customer_id}").json()["results"]
    wrong = [
        operator.get(f"{path}?{query}").status_code for query in ("status=odd", "cursor=odd", "customer_id=1", "x=1")
    ]

    assert [one["id"] for one in first["results"]] == [str(one.pk) for one in reversed(done)]
    assert [one["id"] for one in rest["results"]] == [str(saga.pk)]
    assert rest["next"] is None
    assert [(one["id"], len(one["steps"])) for one in stuck] == [(str(saga.pk), saga.steps.count())]
    assert [one["id"] for one in of_one] == [str(done[0].pk)]
    assert "ada@example.com" not in str(stuck)
    assert wrong == [400] * 4
    assert api.get(path).status_code == 403


def test_one_that_waits_is_tried_at_once_when_a_person_asks(side: Side, staff_client: MakeClient) -> None:
    refuses(side.world, "create", RetryableError("Later.", code="busy"), times=1)
    saga = begun(Saga.Action.CREATE, name="Ada")
    Saga.objects.filter(pk=saga.pk).update(next_attempt_at=timezone.now() + timedelta(hours=1))
    address = reverse("admin:customers_saga_change", args=[saga.pk])
    admin = staff_client("admin")

    page = admin.get(address).content.decode()
    hurried = sagas_retry(ids=[saga.pk], actor="user:ann", reason="now")
    again = sagas_retry(ids=[saga.pk], actor="user:ann", reason="now")
    work_on()

    assert "Try again now" in page
    assert (hurried, again) == ([saga.pk], [])
    assert Saga.objects.get().status == "done"
    assert AuditEntry.objects.get(action="saga.hurried").detail == {"reason": "now"}
